"""Memory over time: `python -m tests.bench.soak --minutes 15`."""
