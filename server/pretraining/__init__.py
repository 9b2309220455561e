"""Base models are made and adapted here: span corruption, the LM objective, LM adaptation, mixtures.

A room above `model` alone: no store, no engine, no HTTP. Nothing is imported here, so that `chorus --help`
costs no JAX.
"""
