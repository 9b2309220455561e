"""Supervised examples: whole, weighed, packed without mixing, tasks left out by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.pretraining.data.examples import Examples, read_examples

SHAPE = (120, 24)


def write(path: Path, lines: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def lines(task: str, count: int) -> list[dict[str, str]]:
    return [{"task": task, "input": f"{task} the cat {n}", "target": f"door {n % 3}"} for n in range(count)]


def read(path: Path, words: Vocabulary, left_out: tuple[str, ...] = ()) -> tuple[Examples, Examples]:
    return read_examples(path, words, shape=SHAPE, left_out=left_out, held_out_share=0.1, seed=0)


def test_rows_hold_whole_examples(tmp_path: Path, words: Vocabulary) -> None:
    train, held_out = read(write(tmp_path / "e.jsonl", lines("a", 40) + lines("b", 20)), words)
    assert train.facts["tasks"] == {"a": 36, "b": 18} and [len(pairs) for pairs in held_out.pairs] == [4, 2]
    known = {(tuple(s.tolist()), tuple(t.tolist())) for pairs in train.pairs for s, t in pairs}
    rows = train.rows(16, SHAPE, 1000, "train", 0, 0)
    assert rows.input_segments is not None and rows.target_segments is not None
    several = 0
    for row in range(16):
        examples = int(rows.input_segments[row].max())
        several += examples > 1
        for segment in range(1, examples + 1):
            source = tuple(rows.inputs[row][rows.input_segments[row] == segment].tolist())
            target = tuple(rows.targets[row][rows.target_segments[row] == segment].tolist())
            assert (source, target) in known
    assert several == 16
    apart = {tuple(s.tolist()) for pairs in held_out.pairs for s, _ in pairs}
    assert not apart & {source for source, _ in known}


def test_tasks_count_up_to_the_cap(tmp_path: Path, words: Vocabulary) -> None:
    train, _ = read(write(tmp_path / "e.jsonl", lines("a", 400) + lines("b", 40)), words)

    def share_of_b(cap: int) -> float:
        drawn = [pair for place in range(60) for pair in train._draw(cap, "share", place)]
        others = {id(pair) for pair in train.pairs[1]}
        return float(np.mean([id(pair) in others for pair in drawn]))

    assert abs(share_of_b(10_000) - 36 / 396) < 0.03
    assert abs(share_of_b(36) - 0.5) < 0.05


def test_left_out_tasks_are_nowhere(tmp_path: Path, words: Vocabulary) -> None:
    path = write(tmp_path / "e.jsonl", lines("a", 20) + lines("b", 20))
    train, held_out = read(path, words, ("b",))
    assert train.tasks == held_out.tasks == ("a",) and train.facts["left_out"] == ["b"]
    with pytest.raises(InvalidInputError, match="no task 'c'; it has a, b"):
        read(path, words, ("c",))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "line 1 is not"),
        ('{"task": "a", "input": "x"}', "line 1 is not"),
        ('{"task": "a", "task": "b", "input": "x", "target": "y"}', "line 1 is not"),
        ('{"task": "a", "input": "x", "target": "' + "door " * 30 + '"}', "--target-length is 24"),
        ('{"task": "a", "input": "x", "target": "y"}', "at least two examples"),
    ],
)
def test_bad_examples_are_refused(tmp_path: Path, words: Vocabulary, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InvalidInputError, match=message):
        read(path, words)
