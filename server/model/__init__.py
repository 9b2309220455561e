"""T5 in JAX and Flax: configuration, layers, vocabulary and checkpoints. Knows nothing of HTTP, the store or
the engine.

`t5` is the way in (`build`, `assemble`, `tensors_of`, `random_tensors`); `functions` holds the pure functions
that the engine compiles; `vocabulary` turns text into ids. Nothing is imported here, so that reading a config
costs no JAX.
"""
