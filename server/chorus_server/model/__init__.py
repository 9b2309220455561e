"""T5 in JAX and Flax: configuration, layers, vocabulary and checkpoints. It knows nothing of HTTP, the store
or the engine.

Start at `t5` (`build`, `assemble`, `tensors_of`, `random_tensors`). `functions` has the pure functions that
the engine compiles; `vocabulary` turns text into ids. Nothing is imported here, so that reading a config does
not import JAX.
"""
