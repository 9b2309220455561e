"""Prompts trained against the frozen weights, in slices. JAX; no thread and no clock."""
