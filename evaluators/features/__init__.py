"""Features of images that distances are computed in."""
