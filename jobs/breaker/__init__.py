"""The circuit breaker that all workers share: its memory is Redis, its rules are the Lua scripts in `lua/`."""
