"""Data sets, each with the layout of its published files."""
