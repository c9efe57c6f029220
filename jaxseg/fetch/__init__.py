"""Data and weights in one command: what is where (manifest), on which terms (get), under which name (weights)."""
