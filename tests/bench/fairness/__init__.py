"""What one client can do to another: `python -m tests.bench.fairness`."""
