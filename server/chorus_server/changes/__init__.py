"""What a process remembers of the store, for as long as the change feed names no change of it."""
