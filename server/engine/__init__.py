"""Requests in, tokens out: the scheduler decides and emits step plans, the executor runs them on the
device."""
