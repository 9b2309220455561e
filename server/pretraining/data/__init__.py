"""Text becomes batches: corpus, vocabulary, packed token files, chunks, objectives. Host only, no JAX."""
