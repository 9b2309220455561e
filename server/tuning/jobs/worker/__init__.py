"""Who takes jobs, and each attempt at one from its first stage to its last."""
