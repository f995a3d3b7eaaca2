"""A table of the tenant's own in PostgreSQL."""
