"""Data sets: ``catalog`` lists them without importing torch, ``load`` gets and reads them."""
