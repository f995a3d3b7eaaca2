"""Speed, measured as a ratio within one run: these figures are printed, never asserted in a test."""
