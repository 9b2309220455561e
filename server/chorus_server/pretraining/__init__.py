"""Makes and adapts base models: span corruption, the LM objective, LM adaptation, mixtures.

This package uses only `model`: no store, no engine, no HTTP. Nothing is imported here, so that `chorus
--help` does not import JAX.
"""
