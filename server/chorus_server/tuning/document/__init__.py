"""The job document: what is sent, stored, documented and run, in one set of models. No JAX."""
