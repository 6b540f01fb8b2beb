"""Suites, statistics and comparison of checkpoints."""
