"""Mutated requests by the million: `python -m tests.fuzz --help`."""
