"""Delivery: dispatcher → destination worker → attempt → guarded client → adapter; the recorder commits the results."""
