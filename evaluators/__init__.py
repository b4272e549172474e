"""Measurements of synthetic images: one file per evaluator, found by its name."""
