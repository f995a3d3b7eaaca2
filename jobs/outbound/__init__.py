"""Calls to URLs that tenants gave us: which addresses are called, and what is read of an answer."""
