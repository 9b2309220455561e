"""Grants: what a tenant lets others use of its tasks, ensembles and packs."""
