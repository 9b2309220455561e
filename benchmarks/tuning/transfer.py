"""Domain shift (section 5): what was tuned on one set answers another of the same question.

The target's rows in the source's template; the source's labels are scored and both sides mapped to the
question they share. Nothing of the target is trained on or chosen by.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.tuning.amazon import amazon_rows
from benchmarks.tuning.base import Base
from benchmarks.tuning.prompts import trained_prompts
from benchmarks.tuning.results import DATA, written
from benchmarks.tuning.rows import Rows, load_rows
from benchmarks.tuning.statistics import right
from chorus_server.tuning.data.examples import TextRow
from chorus_server.tuning.training.initialisers import PromptValues

ENTAILMENT: Mapping[str, int] = {"yes": 1, "no": 0, "maybe": 0}
SENTIMENT: Mapping[str, int] = {"negative": 0, "positive": 1}
QUESTION: Mapping[str, Mapping[str, int]] = {
    "rte": ENTAILMENT, "cb": ENTAILMENT, "amazon": SENTIMENT, "sst2_long": SENTIMENT, "sst2_brief": SENTIMENT,
}  # fmt: skip
BRIEF, LONG, AMAZON_ROWS = 20, 36, 1000
"""Text tokens of SST-2's brief sentences at most, of its long ones at least; product reviews taken."""


def run_transfer(base: Base, run: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """The prompts of the run `source`, tuned on `task`, on each target of `transfer`."""
    wall = time.perf_counter()
    prompts = trained_prompts(run["source"])
    rows = load_rows(run["task"], DATA)
    found = {name: transferred(base, rows, name, prompts) for name in run["transfer"]}
    say(f"  measured on {len(found)} sets")
    return {
        "base": base.name,
        "fingerprint": base.fingerprint,
        "transfer": found,
        "report": {name: each["accuracy"] for name, each in found.items()},
        "wall_seconds": round(time.perf_counter() - wall, 1),
    }


def transferred(
    base: Base, rows: Rows, target: str, prompts: PromptValues | None, params: Any = None
) -> dict[str, Any]:
    """Answers of what was tuned on `rows` to a target's report split.

    Args:
        prompts: [N, P, D]; None with `params`, for model tuning.
    """
    question, task = QUESTION[target], rows.task
    split = target_rows(base, target)
    inputs = [base.ids(row.text, 256) for row in split]
    scores = base.scores(prompts, inputs, [base.ids(label, 64) for label in task.labels], params)
    meaning = np.array([question[label] for label in task.labels])
    said = meaning[scores.argmax(axis=2)].tolist()
    truth = [question[row.answers[0]] for row in split]
    return {
        "rows": len(split),
        "accuracy": right(said, truth).mean(axis=1).round(5).tolist(),
        "truth": written(truth),
        "predictions": [written(member) for member in said],
    }


def target_rows(base: Base, target: str) -> list[TextRow]:
    """The report split of a target; of SST-2 its brief or its long sentences."""
    if target == "amazon":
        ordered = sorted(amazon_rows(), key=lambda row: hashlib.sha256(row.text.encode()).digest())
        return ordered[:AMAZON_ROWS]
    name = "sst2" if target.startswith("sst2") else target
    every = load_rows(name, DATA).report
    if name != "sst2":
        return list(every)
    lengths = [len(base.vocabulary.encode(row.text)) for row in every]
    keep = [size >= LONG if target == "sst2_long" else size <= BRIEF for size in lengths]
    return [row for row, kept in zip(every, keep, strict=True) if kept]
