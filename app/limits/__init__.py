"""Rate limits of requests: how much a key, a tenant, an address and all together may ask of the service."""
