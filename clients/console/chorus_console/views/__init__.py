"""One file for what belongs together in the navigation."""
