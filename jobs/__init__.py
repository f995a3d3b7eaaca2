"""Everything that runs in a Tranche worker."""
