"""T5's span corruption (Raffel et al. 2020, section 3.1.4; `t5.data.preprocessors` of the released code).

A chunk of N ids loses `noise_density` of them in spans. The input has a sentinel in place of each span; the
target has each sentinel and the ids that it replaced; both end in `</s>`. All chunks of one length give the
same lengths, so there is no padding: documents are concatenated to full length, and packing needs no
segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chorus_server.errors import InvalidInputError
from chorus_server.pretraining.data.randomness import bits
from chorus_server.pretraining.data.tokens import Ids

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class SpanShape:
    """How a chunk is divided.

    Attributes:
        chunk: N, ids before corruption.
        noise: number of ids that go to the target.
        spans: number of sentinels on each side.
    """

    chunk: int
    noise: int
    spans: int

    @property
    def input_length(self) -> int:
        """L, including sentinels and `</s>`."""
        return self.chunk - self.noise + self.spans + 1

    @property
    def target_length(self) -> int:
        """T, including sentinels and `</s>`."""
        return self.noise + self.spans + 1


def span_shape(chunk: int, noise_density: float, mean_span_length: float) -> SpanShape:
    """The counts of `random_spans_noise_mask` for chunks of `chunk` ids (at least 2)."""
    noise = min(max(round(chunk * noise_density), 1), chunk - 1)
    return SpanShape(chunk, noise, max(round(noise / mean_span_length), 1))


def fitting_shape(
    input_length: int, noise_density: float, mean_span_length: float, sentinels: int
) -> SpanShape:
    """The longest chunk whose input fits `input_length`: 568 ids for 512, with a target of 114.

    Raises:
        InvalidInputError: there would be more spans than sentinels.
    """
    chunk = 2
    while span_shape(chunk + 1, noise_density, mean_span_length).input_length <= input_length:
        chunk += 1
    shape = span_shape(chunk, noise_density, mean_span_length)
    if shape.spans > sentinels:
        raise InvalidInputError(
            f"inputs of {input_length} tokens have {shape.spans} corrupted spans, but the vocabulary has "
            f"only {sentinels} sentinels; choose a smaller --input-length",
            field="input_length",
        )
    return shape


def noise_masks(shape: SpanShape, rows: int, *key: str | int) -> Mask:
    """[rows, N] bool, true where an id is noise. Spans of kept ids and of noise alternate, kept ids first.

    Both are random segmentations: all ways to cut the noise (and the rest) into `spans` pieces of at least
        one id are equally likely.
    """
    kept = _segment_lengths(shape.chunk - shape.noise, shape.spans, rows, "kept", *key)
    noise = _segment_lengths(shape.noise, shape.spans, rows, "noise", *key)
    ends = np.cumsum(np.stack([kept, noise], axis=2).reshape(rows, -1), axis=1)
    starts = np.zeros((rows, shape.chunk), np.int64)
    np.put_along_axis(starts, ends[:, :-1], 1, axis=1)
    masks: Mask = np.cumsum(starts, axis=1) % 2 == 1
    return masks


def corrupt(chunks: Ids, masks: Mask, sentinels: Ids, eos_id: int) -> tuple[Ids, Ids]:
    """chunks and masks [B, N] -> inputs [B, L] and targets [B, T].

    Args:
        sentinels: ids of `<extra_id_0>`, `<extra_id_1>`, ...
    """
    return _replaced(chunks, masks, sentinels, eos_id), _replaced(chunks, ~masks, sentinels, eos_id)


def _replaced(chunks: Ids, gone: Mask, sentinels: Ids, eos_id: int) -> Ids:
    """Each run of `gone` ids becomes the next sentinel; `</s>` at the end."""
    first = gone & ~np.pad(gone, ((0, 0), (1, 0)))[:, :-1]
    number = np.cumsum(first, axis=1) - 1
    marked = np.where(first, sentinels[np.maximum(number, 0)], chunks)
    rows = marked[~gone | first].reshape(len(chunks), -1)
    return np.pad(rows, ((0, 0), (0, 1)), constant_values=eos_id).astype(chunks.dtype)


def _segment_lengths(items: int, segments: int, rows: int, *key: str | int) -> Ids:
    """[rows, segments] lengths of at least 1 that add up to `items`: the first item of each later segment is
    chosen from items - 1 places."""
    order = np.argsort(bits(rows * (items - 1), *key).reshape(rows, items - 1), axis=1)[:, : segments - 1]
    firsts = np.sort(order + 1, axis=1)
    edges = np.pad(firsts, ((0, 0), (1, 1)))
    edges[:, -1] = items
    return np.diff(edges, axis=1)
