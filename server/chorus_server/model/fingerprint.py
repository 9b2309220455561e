"""The name of a base model, whatever file it came from. A prompt is tuned on one fingerprint and refused on
any other.

It is the SHA-256 of canonical JSON of `{"architecture": fields, "tensors": [[name, shape, sha256], ...]}`,
with tensors sorted by name. A tensor's SHA-256 covers its canonical row-major values rounded to bf16,
little-endian, with only the rows that belong to the vocabulary. So f32 and bf16 files agree, and so do files
that pad the vocabulary differently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from chorus_server.model.config import T5Config

DIGEST_BLOCK_BYTES = 8 * 1024 * 1024

ARCHITECTURE_FIELDS = (
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_heads",
    "num_encoder_layers",
    "num_decoder_layers",
    "relative_buckets",
    "relative_max_distance",
    "gated",
    "activation",
    "tied",
    "norm_epsilon",
)
"""The fields that change the function computed by the weights. Names, padding, dropout and ids that the
caller chooses do not."""


class Fingerprinter:
    """Collects tensors, in any order, as they stream past."""

    def __init__(self, config: T5Config) -> None:
        self._config = config
        self._tensors: dict[str, tuple[tuple[int, ...], str]] = {}

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Add one canonical tensor, f32 or bf16."""
        used = unpadded(self._config, name, array)
        self._tensors[name] = (used.shape, tensor_digest(used))

    def watch(self, tensors: Iterable[tuple[str, NDArray[Any]]]) -> Iterator[tuple[str, NDArray[Any]]]:
        """The same tensors; each is added as it passes."""
        for name, array in tensors:
            self.add(name, array)
            yield name, array
            del array

    @property
    def tensor_digests(self) -> dict[str, str]:
        """SHA-256 (hex) of each tensor seen, by canonical name."""
        return {name: digest for name, (_, digest) in sorted(self._tensors.items())}

    def fingerprint(self) -> str:
        """The fingerprint (hex) of everything that was added."""
        return fingerprint_of(
            self._config, {name: digest for name, (_, digest) in self._tensors.items()}, self._shapes()
        )

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, (shape, _) in self._tensors.items()}


def fingerprint_of(
    config: T5Config, digests: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> str:
    """The fingerprint, from tensor digests and unpadded shapes by canonical name."""
    document = {
        "architecture": {field: getattr(config, field) for field in ARCHITECTURE_FIELDS},
        "tensors": [[name, list(shapes[name]), digests[name]] for name in sorted(digests)],
    }
    canonical = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def unpadded(config: T5Config, name: str, array: NDArray[Any]) -> NDArray[Any]:
    """A view without the embedding rows and head columns that pad the vocabulary."""
    if name == "embedding":
        return array[: config.vocab_size]
    if name == "head":
        return array[:, : config.vocab_size]
    return array


def tensor_digest(array: NDArray[Any]) -> str:
    """SHA-256 (hex) of the values rounded to bf16, row by row. It needs a few MiB of extra memory."""
    digest = hashlib.sha256()
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    step = max(1, DIGEST_BLOCK_BYTES // row_bytes)
    for start in range(0, len(array), step):
        block = array[start : start + step].astype(ml_dtypes.bfloat16, copy=False)
        digest.update(np.ascontiguousarray(block).view("<u2").data)
    return digest.hexdigest()
