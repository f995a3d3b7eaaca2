"""How much a destination is called: calls at a time, calls per second, memory of what is held for it."""
