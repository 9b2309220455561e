"""The engine and its thread, which asks the scheduler for plans and has the executor run them."""
