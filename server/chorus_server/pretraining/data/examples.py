"""Supervised text-to-text examples: named tasks in JSON lines, mixed the way T5 mixes them, packed into rows.

Each line is `{"task": name, "input": text, "target": text}`. Tasks may be left out of training by name. A
task is drawn in proportion to its size, but at most `cap` of its examples count (T5's K).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chorus_server.errors import InvalidInputError
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.pretraining.data.randomness import bits, permutation
from chorus_server.pretraining.data.rows import Rows
from chorus_server.pretraining.data.tokens import Ids
from chorus_server.strict_json import parse_strictly

MAX_EXAMPLE_LINE_BYTES = 1024 * 1024
PER_ROW = 64
"""Most examples in one row, because segments are small numbers."""

Pair = tuple[Ids, Ids]
"""Input and target ids; each ends in `</s>`."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples to draw from.

    Attributes:
        tasks: names, in the order of `pairs`.
        pairs: the pairs of each task.
        left_out: names of the tasks from which no example was taken.
        facts: file name, SHA-256 and counts, for the model card.
    """

    tasks: tuple[str, ...]
    pairs: tuple[tuple[Pair, ...], ...]
    left_out: tuple[str, ...]
    facts: dict[str, Any]

    def rows(self, count: int, shape: tuple[int, int], cap: int, *key: str | int) -> Rows:
        """`count` rows of drawn examples; a pure function of the key.

        Args:
            shape: L and T. Examples are put into a row until the next one does not fit.
            cap: the most examples of a task that count when tasks are weighed.
        """
        L, T = shape
        dtype = self.pairs[0][0][0].dtype
        inputs, targets = np.zeros((count, L), dtype), np.zeros((count, T), dtype)
        input_segments, target_segments = np.zeros((count, L), np.uint8), np.zeros((count, T), np.uint8)
        for row in range(count):
            at_input = at_target = 0
            for segment, (source, target) in enumerate(self._draw(cap, *key, row), start=1):
                after_input, after_target = at_input + len(source), at_target + len(target)
                if after_input > L or after_target > T:
                    break
                inputs[row, at_input:after_input], targets[row, at_target:after_target] = source, target
                input_segments[row, at_input:after_input] = segment
                target_segments[row, at_target:after_target] = segment
                at_input, at_target = after_input, after_target
        return Rows(inputs, input_segments, targets, target_segments)

    def _draw(self, cap: int, *key: str | int) -> list[Pair]:
        words = bits(2 * PER_ROW, "examples", *key)
        shares = np.cumsum([min(len(pairs), cap) for pairs in self.pairs])
        tasks = np.searchsorted(shares, words[:PER_ROW] % np.uint64(shares[-1]), side="right")
        chosen = words[PER_ROW:]
        return [
            self.pairs[task][int(word % np.uint64(len(self.pairs[task])))]
            for task, word in zip(tasks.tolist(), chosen, strict=True)
        ]


def read_examples(
    path: Path, vocabulary: Vocabulary, *, shape: tuple[int, int], left_out: Sequence[str],
    held_out_share: float, seed: int,
) -> tuple[Examples, Examples]:  # fmt: skip
    """The examples of a file, for training and held out. Inputs longer than L are cut.

    Raises:
        InvalidInputError: a line is malformed (named by its number); a target does not fit; the file does not
            have a task that is to be left out; or nothing is left to train on.
    """
    found: dict[str, list[Pair]] = {}
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                task, source, target = _fields(path, number, raw)
                found.setdefault(task, []).append(_ids(path, number, source, target, vocabulary, shape))
    for name in left_out:
        if name not in found:
            known = ", ".join(sorted(found))
            raise InvalidInputError(f"{path.name} has no task {name!r}; it has {known}", field="leave_out")
    names = tuple(sorted(set(found) - set(left_out)))
    train, held_out = [], []
    for name in names:
        order = permutation(len(found[name]), "examples held out", seed, name)
        apart = max(1, round(len(order) * held_out_share))
        held_out.append(tuple(found[name][n] for n in order[:apart]))
        train.append(tuple(found[name][n] for n in order[apart:]))
    if not names or not all(train):
        raise _refused(f"{path.name} needs at least two examples of each task to train on", "examples")
    facts = {
        "name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "tasks": {name: len(pairs) for name, pairs in zip(names, train, strict=True)},
        "left_out": sorted(left_out),
    }  # fmt: skip
    made = (Examples(names, tuple(pairs), tuple(sorted(left_out)), facts) for pairs in (train, held_out))
    return next(made), next(made)


def _fields(path: Path, number: int, raw: bytes) -> tuple[str, str, str]:
    line: Any
    try:
        line = parse_strictly(raw.decode("utf-8")) if len(raw) <= MAX_EXAMPLE_LINE_BYTES else None
        task, source, target = line["task"], line["input"], line["target"]
    except (ValueError, KeyError, TypeError, RecursionError):
        task = source = target = None
    if not (
        isinstance(task, str) and isinstance(source, str) and isinstance(target, str) and source and target
    ):
        raise _refused(
            f'{path.name}, line {number} is not {{"task": name, "input": text, "target": text}}', "examples"
        )
    return task, source, target


def _ids(
    path: Path, number: int, source: str, target: str, vocabulary: Vocabulary, shape: tuple[int, int]
) -> Pair:
    dtype = np.uint16 if vocabulary.size <= 1 << 16 else np.uint32
    said = [*vocabulary.encode(target), vocabulary.eos_id]
    if len(said) > shape[1]:
        raise _refused(
            f"{path.name}, line {number}: the target has {len(said)} tokens with </s>; --target-length is "
            f"{shape[1]}",
            "target_length",
        )
    asked = [*vocabulary.encode(source)[: shape[0] - 1], vocabulary.eos_id]
    return np.asarray(asked, dtype), np.asarray(said, dtype)


def _refused(message: str, field: str) -> InvalidInputError:
    return InvalidInputError(message, field=field)
