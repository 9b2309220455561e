"""One host's queue, time and cancellation: requests in, step plans out. Single-threaded; it belongs to the
engine's thread."""
