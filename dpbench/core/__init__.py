"""The lowest floor: imported by every other folder, imports none of them."""
