"""Benchmarks of speed and memory against other implementations, for docs/benchmarks.md (launch/benchmark.py)."""
