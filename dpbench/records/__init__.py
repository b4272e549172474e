"""What is kept of runs, and what it proves."""
