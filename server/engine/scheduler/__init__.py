"""One host's queue, time and cancellation: requests in, step plans out. Single-threaded; the engine's thread
owns it."""
