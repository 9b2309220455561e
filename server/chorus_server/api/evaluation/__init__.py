"""Evaluations: how good the answers of prompts, ensembles, packs and the base model are on a data file."""
