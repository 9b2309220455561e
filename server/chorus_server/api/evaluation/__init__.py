"""Evaluations: how good the answers of prompts, ensembles and the base model are on a data file."""
