"""Benchmarks, relative to peers and floors in the same run."""
