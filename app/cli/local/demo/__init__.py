"""`tranche demo`: the main job, end to end, on real engines, in front of your eyes."""
