"""The work that shows how right a contender is: free answers, and labels behind tuned prompts.

    greedy      500 texts behind one untuned prompt of 20 rows, up to 16 tokens
    sst2, trec  the published report rows behind a prompt of 20 rows, tuned in f32 by Chorus

`sst2`'s prompt was tuned by `python -m benchmarks.tuning.quality --plan benchmarks/peers/prompts.json`,
`trec`'s is the first of the five behind docs/quality.md; both lie in `benchmarks/results/quality_prompts`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))
import numpy as np
from comparison import equal_answers, label_accuracy
from safetensors.numpy import load_file
from workload import Load, Request, texts, write

from benchmarks.tuning.rows import load_rows
from chorus_server.model.checkpoints import load_model
from chorus_server.model.vocabulary import Vocabulary

PROMPTS = Path(__file__).parents[1] / "results" / "quality_prompts"
TUNED = {"sst2": "sst2-one", "trec": "trec-prompts"}
"""The kept prompts by task; the first of several."""
ANSWERS, ANSWER_TOKENS, LABEL_TOKENS, ROWS = 500, 16, 8, 20
LONGEST_TEXT = 128
Answer = Callable[[Path], list[list[int]]]


class Accuracy:
    """Work written once, answers counted for each contender."""

    def __init__(self, model: Path, shared: Path, scratch: Path) -> None:
        self._folder, self._truth = scratch, dict[str, list[list[int]]]()
        vocabulary = Vocabulary.load(model / "spiece.model")
        free = [self._ids(vocabulary, text) for text in texts(shared)[:ANSWERS]]
        self._write("greedy", free, _untuned_prompt(model), ANSWER_TOKENS)
        for task, name in TUNED.items():
            rows = load_rows(task, shared / "data").report
            prompt = load_file(PROMPTS / f"{name}.safetensors")["prompts"][:1]
            self._write(task, [self._ids(vocabulary, row.text) for row in rows], prompt, LABEL_TOKENS)
            self._truth[task] = [vocabulary.encode(row.answers[0]) for row in rows]
        self._reference: list[list[int]] | None = None

    def measure(self, answer: Answer) -> dict[str, Any]:
        """A contender's. The first that is measured is the reference of the others."""
        greedy = answer(self._folder / "greedy")
        self._reference = self._reference or greedy
        labels = {task: label_accuracy(answer(self._folder / task), self._truth[task]) for task in TUNED}
        return {"greedy_equal": equal_answers(greedy, self._reference), "of": ANSWERS, "labels": labels}

    def _ids(self, vocabulary: Vocabulary, text: str) -> list[int]:
        return [*vocabulary.encode(text)[:LONGEST_TEXT], vocabulary.eos_id]

    def _write(self, name: str, inputs: list[list[int]], prompt: np.ndarray[Any, Any], most: int) -> None:
        requests = [Request(0, ids, most, exact=False) for ids in inputs]
        write(self._folder / name, Load(name, 1, len(requests)), requests, prompt)


def _untuned_prompt(model: Path) -> np.ndarray[Any, Any]:
    """[1, P, D]: rows with the spread of the model's own embedding."""
    embedding = np.asarray(load_model(str(model)).model.params["embedding"], np.float32)
    rows = np.random.default_rng(7).normal(0, embedding.std(), (1, ROWS, embedding.shape[1]))
    return rows.astype(np.float32)
