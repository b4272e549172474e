"""Benchmarks of speed: each part of a run is timed side by side with its yardstick.

No number from here enters a record or a leaderboard.
"""
