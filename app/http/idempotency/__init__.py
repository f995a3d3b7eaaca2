"""`Idempotency-Key` on requests that are not imports: the answer is stored in the transaction that did the work."""
