"""Classifiers that evaluators train."""
