"""Pure rules: no I/O, no clock, no randomness; whatever varies comes in as an argument."""
