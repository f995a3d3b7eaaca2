"""Any HTTP service that takes batches of JSON, as its options describe it."""
