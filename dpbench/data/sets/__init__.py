"""Data sets with a layout of their own."""
