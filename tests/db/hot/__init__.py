"""The queries that must find their rows by an index, by area: arguments, and the indexes that each plan must use."""
