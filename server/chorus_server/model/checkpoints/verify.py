"""The fingerprint of an opened checkpoint, and whether the stored content still matches it."""

from __future__ import annotations

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.fingerprint_cache import cached_fingerprint, keep_fingerprint
from chorus_server.model.checkpoints.load import reported
from chorus_server.model.checkpoints.reader import CheckpointReader
from chorus_server.model.checkpoints.tensors import TensorProgress
from chorus_server.model.fingerprint import Fingerprinter


def find_fingerprint(reader: CheckpointReader, progress: TensorProgress | None = None) -> str:
    """The fingerprint that is stored or was kept from last time; else computed by reading every tensor
    once."""
    known = reader.fingerprint or cached_fingerprint(reader)
    if known is not None:
        return known
    value = compute(reader, progress).fingerprint()
    keep_fingerprint(reader, value)
    return value


def verify_fingerprint(reader: CheckpointReader, progress: TensorProgress | None = None) -> str:
    """Compute the fingerprint from the tensors and compare it with what the checkpoint says. For a quantised
    one, returns its parent's.

    Raises:
        InvalidModelError: they differ. If the format keeps digests of tensors, the error names the first that
            changed.
    """
    collector = compute(reader, progress)
    value = collector.fingerprint()
    if reader.content_fingerprint == value:
        return reader.fingerprint or value
    kept = reader.content_fingerprint or reader.fingerprint
    if kept not in (None, value):
        digests = collector.tensor_digests
        changed = [name for name, digest in reader.tensor_digests.items() if digests.get(name) != digest]
        culprit = f"tensor {changed[0]} has changed" if changed else "its architecture has changed"
        raise InvalidModelError(
            f"the checkpoint says that its fingerprint is {kept}, but its content has {value}: {culprit}"
        )
    return value


def compute(reader: CheckpointReader, progress: TensorProgress | None = None) -> Fingerprinter:
    """Read every tensor once, as it is stored."""
    tensors = reader.tensors(reader.stored_dtype)
    if progress is not None:
        named = f"reading {reader.config.name}"
        tensors = reported(tensors, progress, named, reader.config, reader.stored_dtype.itemsize)
    collector = Fingerprinter(reader.config)
    for name, array in tensors:
        collector.add(name, array)
        del array
    return collector
