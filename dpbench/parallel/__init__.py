"""Cores, processes and devices."""
