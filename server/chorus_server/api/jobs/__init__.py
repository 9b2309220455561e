"""Jobs whose work is requests to the engine of a serving process."""
