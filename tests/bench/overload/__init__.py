"""Three times as many imports as can be accepted: `python -m tests.bench.overload`."""
