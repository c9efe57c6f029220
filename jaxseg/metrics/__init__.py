"""Scores of predictions against the truth: one protocol (score.py), a score a file, always `Score`."""
