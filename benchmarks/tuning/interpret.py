"""Section 7's questions to tuned prompts: which pieces of the vocabulary lie nearest to their rows.

Nearness is cosine, among ordinary pieces. Control: random vectors of the same number and width, as near to a
piece as chance brings them; and the prompt before it was tuned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.tuning.base import Base
from benchmarks.tuning.prompts import first_values, trained_prompts
from benchmarks.tuning.results import DATA, load
from benchmarks.tuning.rows import load_rows
from chorus_server.tuning.training.initialisers import PromptValues

NEAREST = 5


def run_interpret(base: Base, run: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """The prompts of each run of `sources`."""
    wall = time.perf_counter()
    pieces = ordinary_pieces(base)
    unit = _unit(base.embedding[pieces])
    found = {}
    for source in run["sources"]:
        document = load(source)
        assert document is not None, f"{source} has not run"
        labels = load_rows(document["run"]["task"], DATA).task.labels
        wanted = [sorted(set(base.vocabulary.encode(label))) for label in labels]
        tuned, before = trained_prompts(source), first_values(base, document["run"])
        found[source] = {
            "tuned": [_described(base, each, unit, pieces, wanted) for each in tuned],
            "before": [_described(base, each, unit, pieces, wanted) for each in before],
            "moved_cosine": _moved(before, tuned),
        }
        say(f"  {source}: {found[source]['tuned'][0]['labels_found']}")
    random = np.random.default_rng(0).standard_normal((200, base.embedding.shape[1])).astype(np.float32)
    cosines = (_unit(random) @ unit.T).max(axis=1)
    return {
        "base": base.name,
        "fingerprint": base.fingerprint,
        "prompts": found,
        "random_vectors": {"nearest_cosine_mean": round(float(cosines.mean()), 4)},
        "report": {name: each["tuned"][0]["labels_found"] for name, each in found.items()},
        "wall_seconds": round(time.perf_counter() - wall, 1),
    }


def ordinary_pieces(base: Base) -> list[int]:
    """Ids of all pieces that text is made of."""
    return sorted(base.vocabulary.common_pieces(1_000_000))


def nearest(prompt: PromptValues, unit: PromptValues, count: int) -> tuple[Any, Any]:
    """Of each row [P, D] the `count` nearest of unit rows [V, D]: places [P, count], cosines [P, count]."""
    cosines = _unit(prompt) @ unit.T
    places = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return places, np.take_along_axis(cosines, places, axis=1)


def labels_found(near: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> int:
    """How many labels have a piece among the nearest of any row."""
    seen = {id for row in near for id in row}
    return sum(any(id in seen for id in label) for label in wanted)


def _described(
    base: Base,
    prompt: PromptValues,
    unit: PromptValues,
    pieces: Sequence[int],
    wanted: Sequence[Sequence[int]],
) -> dict[str, Any]:
    places, cosines = nearest(prompt, unit, NEAREST)
    near = [[pieces[place] for place in row] for row in places.tolist()]
    firsts = [row[0] for row in near]
    rows = sorted(range(len(prompt)), key=lambda row: -cosines[row, 0])[:8]
    return {
        "labels": len(wanted),
        "labels_found": labels_found(near, wanted),
        "nearest_cosine_mean": round(float(cosines[:, 0].mean()), 4),
        "rows": len(firsts),
        "different_nearest": len(set(firsts)),
        "row_norm_mean": round(float(np.linalg.norm(prompt, axis=1).mean()), 1),
        "examples": [[row, [base.vocabulary.piece(id) for id in near[row]]] for row in rows],
    }


def _unit(x: PromptValues) -> PromptValues:
    scaled: PromptValues = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return scaled


def _same_rows(a: PromptValues, b: PromptValues) -> PromptValues:
    together: PromptValues = (_unit(a) * _unit(b)).sum(axis=1)
    return together


def _moved(before: Sequence[PromptValues], tuned: PromptValues) -> list[float]:
    """Mean cosine of a prompt's rows with what they were."""
    return [round(float(_same_rows(a, b).mean()), 4) for a, b in zip(before, tuned, strict=True)]
