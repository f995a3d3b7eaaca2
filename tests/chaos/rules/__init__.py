"""The rules of the checker: each is a function from a round's evidence to its findings."""
