"""`make bench-large`: imports of up to a million rows, through real processes."""
