"""Packs examples into the arrays of a dispatch, on the host."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import jax
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
    """Divides a step's examples into dispatches, in order. Each takes as many of the next examples as fit
    into a rung: the one with the fewest tokens, padding included, for each example.

    Args:
        chosen: for each prompt, the indices of its train examples, the shortest first.
    """
    found: list[Dispatch] = []
    P = shapes.prompt_length
    lengths = [
        [P + len(task.train[index].input_ids) for index in some]
        for task, some in zip(run.tasks, chosen, strict=True)
    ]
    columns = list(zip(*lengths, strict=True))  # the next example of every prompt
    start = 0
    while start < len(columns):
        fitting = {length: _fitting(shapes, length, columns[start:]) for length in shapes.input_lengths}
        costs = {length: shapes.tokens_at(length) / count for length, count in fitting.items() if count}
        length = min(costs, key=lambda each: (costs[each], each))
        end = start + fitting[length]
        found.append((length, [some[start:end] for some in chosen]))
        start = end
    return found


def _fitting(shapes: TrainingShapes, length: int, columns: Sequence[Sequence[int]]) -> int:
    """How many of the next examples of each prompt, by their lengths, fit into a dispatch of this rung."""
    groups = shapes.groups
    tokens, count = [0] * groups, 0
    for column in columns[: groups * shapes.rows_at(length)]:
        tokens[count % groups] += sum(column)
        if max(column) > length or tokens[count % groups] > shapes.tokens_at(length):
            break
        count += 1
    return count


def pack_batch(
    vocab_rows: int,
    shapes: TrainingShapes,
    run: TrainingRun,
    step: int,
    chosen: Sequence[Sequence[int]],
    length: int | None = None,
) -> TuningBatch:
    """One dispatch. Groups of devices take the examples of each prompt in turn.

    Args:
        chosen: for each prompt, the indices of its train examples.
        length: of the rung; the smallest that holds every example if left out.
    """
    P = shapes.prompt_length
    if length is None:
        texts = (run.tasks[n].train[i].input_ids for n, indices in enumerate(chosen) for i in indices)
        length = shapes.input_length(P + max(map(len, texts)))
    groups = shapes.groups
    parts = [
        _pack_group(vocab_rows, shapes, run, step, [some[group::groups] for some in chosen], length)
        for group in range(groups)
    ]
    return parts[0] if groups == 1 else jax.tree.map(lambda *each: np.concatenate(each), *parts)


def _pack_group(
    vocab_rows: int,
    shapes: TrainingShapes,
    run: TrainingRun,
    step: int,
    chosen: Sequence[Sequence[int]],
    length: int,
) -> TuningBatch:
    P = shapes.prompt_length
    rows, used = shapes.rows_at(length), 0
    B = len(chosen) * rows
    ids, starts, lengths = np.zeros(shapes.tokens_at(length), np.int32), *np.zeros((2, B), np.int32)
    targets, target_lengths = np.zeros((B, shapes.target_length), np.int32), np.zeros(B, np.int32)
    keys = np.zeros((B, 2), np.uint32)
    for n, indices in enumerate(chosen):
        for row, i in enumerate(indices, start=n * rows):
            example, first = run.tasks[n].train[i], vocab_rows + n * P
            whole = (*range(first, first + P), *example.input_ids)
            ids[used : used + len(whole)] = whole
            lengths[row] = len(whole)
            target_lengths[row] = len(example.target_ids)
            targets[row, : target_lengths[row]] = example.target_ids
            keys[row] = row_key(run.seed, run.tasks[n].index, step, i)
            used += len(whole)
            starts[row + 1 :] = used
    return TuningBatch(ids, starts, lengths, targets, target_lengths, keys)


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
