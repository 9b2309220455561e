"""Packs examples into the arrays of a dispatch, on the host."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt32

from chorus_server.tuning.data.examples import Example
from chorus_server.tuning.training.objective import TuningBatch
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.shapes import TrainingShapes

Ints = np.ndarray[Any, np.dtype[np.int32]]
Keys = np.ndarray[Any, np.dtype[np.uint32]]
PlacedExample = tuple[int, Example]
"""(place of a prompt in the job, an example)."""
Dispatch = tuple[int, list[Sequence[int]]]
"""(input length, for each prompt the indices of its examples)."""


def pack_training_inputs(
    vocab_rows: int,
    shapes: TrainingShapes,
    places: Sequence[PlacedExample],
    rows: int,
    length: int | None = None,
) -> tuple[Int32[Ints, "{rows} L"], Int32[Ints, "{rows}"]]:
    """Ids and lengths of inputs, each after its prompt; unused rows have length 0.

    Args:
        vocab_rows: V, rows of the padded embedding: id V + n * P + p is row p of prompt n.
        length: L, a rung that holds them all; the smallest such rung if left out.
    """
    P = shapes.prompt_length
    longest = max(P + len(example.input_ids) for _, example in places)
    ids = np.zeros((rows, length or shapes.input_length(longest)), np.int32)
    lengths = np.zeros(rows, np.int32)
    for row, (prompt, example) in enumerate(places):
        first = vocab_rows + prompt * P
        lengths[row] = P + len(example.input_ids)
        ids[row, :P] = np.arange(first, first + P)
        ids[row, P : lengths[row]] = example.input_ids
    return ids, lengths


def dispatches(shapes: TrainingShapes, run: TrainingRun, chosen: Sequence[Sequence[int]]) -> list[Dispatch]:
    """Divides a step's examples into dispatches, in order. Each dispatch takes the smallest rung into which
    as many of the next examples fit as the rung has rows, so that a long example does not pad the short ones.

    Args:
        chosen: for each prompt, the indices of its train examples, the shortest first.
    """
    found: list[Dispatch] = []
    count, start = len(chosen[0]), 0
    tasks = list(zip(run.tasks, chosen, strict=True))
    while start < count:
        for length in shapes.input_lengths:
            end = start + shapes.rows_at(length)
            if end > count:
                continue
            longest = max(len(task.train[some[end - 1]].input_ids) for task, some in tasks)
            if shapes.prompt_length + longest <= length:
                break
        found.append((length, [some[start:end] for some in chosen]))
        start = end
    return found


def pack_batch(
    vocab_rows: int,
    shapes: TrainingShapes,
    run: TrainingRun,
    step: int,
    chosen: Sequence[Sequence[int]],
    length: int | None = None,
) -> TuningBatch:
    """One dispatch.

    Args:
        chosen: for each prompt, the indices of its train examples.
        length: see `pack_training_inputs`.
    """
    places = [(n, run.tasks[n].train[i]) for n, indices in enumerate(chosen) for i in indices]
    ids, lengths = pack_training_inputs(vocab_rows, shapes, places, len(places), length)
    targets, target_lengths = pack_training_targets(
        [example.target_ids for _, example in places], shapes.target_length
    )
    keys = [
        row_key(run.seed, run.tasks[n].index, step, i) for n, indices in enumerate(chosen) for i in indices
    ]
    return TuningBatch(ids, lengths, targets, target_lengths, np.stack(keys))


def pack_training_targets(
    targets: Sequence[Sequence[int]], length: int
) -> tuple[Int32[Ints, "rows {length}"], Int32[Ints, "rows"]]:
    """Ids of targets and their lengths."""
    packed = np.zeros((len(targets), length), np.int32)
    for row, target in enumerate(targets):
        packed[row, : len(target)] = target
    return packed, np.array([len(target) for target in targets], np.int32)


def row_key(seed: int, index: int, step: int, example: int) -> UInt32[Keys, "2"]:
    """The key of a row's dropout, from job seed, prompt index, step and example index, and from nothing
    about its neighbours."""
    digest = hashlib.sha256(struct.pack("<4q", seed, index, step, example)).digest()
    return np.frombuffer(digest[:8], "<u4").astype(np.uint32)
