"""Takes jobs from the store, and runs each attempt from its first stage to its last."""
