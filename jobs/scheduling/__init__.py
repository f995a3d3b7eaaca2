"""Which piece of work a worker does next: tenants in rotation, so that a large one does not hold up a small one."""
