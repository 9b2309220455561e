"""What is done in an attempt at a tuning job, one stage a module, in the order of `pipeline`."""
