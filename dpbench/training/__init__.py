"""What training stands on, private or public."""
