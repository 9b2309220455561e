"""Batches: requests in the lines of a data file, and their answers in the lines of another."""
