"""Typed questions about one input: which version answers each, with which labels, and how sure it is."""
