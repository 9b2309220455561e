"""What each may use over time: how much is left, and which process may spend it."""
