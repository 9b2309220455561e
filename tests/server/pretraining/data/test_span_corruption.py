"""Span corruption is T5's: the released code's numbers and method."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.pretraining.data.span_corruption import (
    SpanShape,
    corrupt,
    fitting_shape,
    noise_masks,
    span_shape,
)

SENTINELS = np.arange(999, 899, -1)


def restored(inputs: list[int], targets: list[int]) -> list[int]:
    """Both sides together: a sentinel of the input stands for what follows it in the target."""
    spans: dict[int, list[int]] = {}
    for id in targets[:-1]:
        if id >= 900:
            spans[id] = current = []
        else:
            current.append(id)
    return [part for id in inputs[:-1] for part in (spans[id] if id >= 900 else [id])]


def published(input_length: int) -> tuple[int, int]:
    """(chunk, target length) as `random_spans_helper` of the released code finds them."""

    def lengths(tokens: int) -> tuple[int, int]:
        noise = round(tokens * 0.15)
        spans = round(noise / 3.0)
        return (tokens - noise) + spans + 1, noise + spans + 1

    tokens = input_length
    while lengths(tokens + 1)[0] <= input_length:
        tokens += 1
    return tokens, lengths(tokens)[1]


def test_the_published_lengths() -> None:
    shape = fitting_shape(512, 0.15, 3.0, 100)
    assert (shape.chunk, shape.input_length, shape.target_length) == (568, 512, 114)


@pytest.mark.parametrize("input_length", [64, 100, 128, 256, 512, 1000, 1024])
def test_lengths_are_those_of_the_released_code(input_length: int) -> None:
    shape = fitting_shape(input_length, 0.15, 3.0, 100)
    assert (shape.chunk, shape.target_length) == published(input_length)
    assert shape.input_length <= input_length


def test_more_spans_than_sentinels_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="--input-length"):
        fitting_shape(2048, 0.15, 3.0, 100)


def test_every_row_has_exactly_the_shape_and_can_be_restored() -> None:
    shape = span_shape(141, 0.15, 3.0)
    masks = noise_masks(shape, 300, "test", 1)
    starts = masks & ~np.pad(masks, ((0, 0), (1, 0)))[:, :-1]
    assert (masks.sum(axis=1) == shape.noise).all() and (starts.sum(axis=1) == shape.spans).all()
    assert not masks[:, 0].any() and masks[:, -1].all(), "kept and noise alternate, kept first"
    chunks = np.random.default_rng(0).integers(3, 900, (300, 141)).astype(np.uint16)
    inputs, targets = corrupt(chunks, masks, SENTINELS, 1)
    assert inputs.shape == (300, shape.input_length) and targets.shape == (300, shape.target_length)
    for row in range(300):
        assert inputs[row, -1] == targets[row, -1] == 1
        said = [id for id in inputs[row] if id >= 900]
        assert said == list(SENTINELS[: shape.spans]) == [id for id in targets[row] if id >= 900]
        assert targets[row, 0] == 999, "the target begins with <extra_id_0>"
        assert restored(inputs[row].tolist(), targets[row].tolist()) == chunks[row].tolist()


def test_independent_noise_would_be_found_out() -> None:
    """The control: noise drawn id by id has other counts in each row."""
    masks = np.random.default_rng(0).random((300, 141)) < 0.15
    assert len(set(masks.sum(axis=1).tolist())) > 1


def test_every_segmentation_is_as_likely() -> None:
    """4 noise ids in 2 spans: lengths (1,3), (2,2), (3,1), each in a third of the rows."""
    shape = SpanShape(chunk=10, noise=4, spans=2)
    masks = noise_masks(shape, 6000, "even", 2)
    counts = Counter(
        tuple(len(run) for run in "".join("x" if n else " " for n in row).split()) for row in masks
    )
    assert set(counts) == {(1, 3), (2, 2), (3, 1)}
    assert all(abs(count - 2000) < 5 * np.sqrt(6000 * 2 / 9) for count in counts.values())


def test_masks_are_a_function_of_their_key() -> None:
    shape = span_shape(141, 0.15, 3.0)
    same, other = noise_masks(shape, 4, "a", 1), noise_masks(shape, 4, "a", 2)
    assert (noise_masks(shape, 4, "a", 1) == same).all() and (other != same).any()
