"""How fast the parts of a run are on this machine, side by side with their yardsticks.

Times are measured, and nothing else: no number here enters a record or a leaderboard.
"""
