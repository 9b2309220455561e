"""From text to batches: corpus, vocabulary, packed token files, chunks, objectives. Host only, without
JAX."""
