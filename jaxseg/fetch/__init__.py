"""Fetches data and weights: their sources (manifest), downloads and terms (get), names of weights (weights)."""
