"""What a contributor imports."""
