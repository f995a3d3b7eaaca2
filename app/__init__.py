"""Tranche: the HTTP service, the client, and what both halves share."""
