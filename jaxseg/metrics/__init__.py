"""Scores of predictions against the truth: add up over a dataset, summarise once."""
