"""Checkpoints of T5: read from Hugging Face, T5X and our own Orbax folders; written to any of them.

The server calls `load_model`. Every reader yields canonical tensors (see `chorus_server.model.parameters`),
one at a time, cast on the way, and nothing keeps more than one of them.
"""

from chorus_server.model.checkpoints.load import LoadedModel, load_model
from chorus_server.model.checkpoints.opening import OpenOptions, open_checkpoint

__all__ = ["LoadedModel", "OpenOptions", "load_model", "open_checkpoint"]
