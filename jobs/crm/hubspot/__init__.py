"""HubSpot: records by batch upsert, keyed by a property of their own."""
