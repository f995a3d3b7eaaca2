"""A topic of the tenant's own in Kafka."""
