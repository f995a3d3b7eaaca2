"""Tranche under fire: seeded rounds of faults at every place, and a checker that knows nothing of Tranche's code."""
