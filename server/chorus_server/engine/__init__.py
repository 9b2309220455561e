"""Requests in, tokens out. The scheduler decides and emits step plans; the executor runs them on the
device."""
