"""Datasets become prompts: recipe, initialisers, objective, metrics, the training loop and its checkpoints.

A library without threads and without a clock: `loop.TuningLoop` advances by bounded slices, so that whoever
runs it decides when. Nothing is imported here, so that reading a recipe costs no JAX.
"""
