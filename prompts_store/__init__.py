"""Versioned soft prompts: names are pointers, content is its digest, nothing is ever overwritten. No JAX in here."""
