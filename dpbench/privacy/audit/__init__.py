"""Audits: lower bounds of epsilon from a run of the mechanism."""
