"""How fast, how large, and beside what: the figures of docs/benchmarks.md (launch/benchmark.py)."""
