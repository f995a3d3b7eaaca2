"""Processing of staged imports."""
