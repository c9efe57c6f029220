"""Scores of predictions against the truth: one protocol (score.py), one score per file, always `Score`."""
