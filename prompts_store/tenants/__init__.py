"""Tenants, their keys, and the feed of changes that tells every process what to look at again."""
