"""Delivery, measured: what an outage of one CRM costs everybody else, what lost answers cost, how fast it goes."""
