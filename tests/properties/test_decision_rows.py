"""Other questions, their order and their ids change no bit of an answer: the real executor, over HTTP.

A pool of questions to two tuned tasks and the base is asked one by one, then in random
subsets of random sizes and order, under random ids. Every number that JSON carries must be the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.conftest import tiny_model  # noqa: F401 - a fixture
from tests.end_to_end.served import Served
from tests.end_to_end.test_serve_tiny import BINARY, npy

SHAPES = {
    "shapes": "input_lengths=32,96 batch_rows=1,2,8 blocks=32x8x4,96x8x4 score_buckets=1x16,8x16",
    "prompt_rows": 64,
    "layout": "unrolled",
}
STATE = "the good film was it"
MIXTURES = 150
VALUES = ["yes", "no", "good", "bad", "cat", "dog", "sun"]


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,  # noqa: F811
    compiled_folder: Path,
) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("data")
    with Served(data, model=tiny_model, compile_cache_dir=compiled_folder, **SHAPES) as server:
        server.wait_ready()
        for seed, (task, template) in enumerate({"short": "{text}", "told": "{instructions} {text}"}.items()):
            query = {"label": ["yes", "no"], "template": template}
            answer = server.http.post(
                f"/v1/tasks/{task}/versions", content=npy(7, seed), headers=BINARY, params=query
            )
            assert answer.status_code == 201, answer.text
        yield server


def pool(random: np.random.Generator) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for index in range(40):
        words = " ".join(random.choice(VALUES, size=int(random.integers(1, 12))).tolist())
        size = int(random.integers(2, 8))
        options = random.permutation(VALUES)[:size].tolist()
        kinds: list[dict[str, Any]] = [
            {"type": "noul"},
            {"type": "choice", "criteria": dict.fromkeys(options)},
            {"type": "score", "criteria": options},
        ]
        found.append({"instructions": words, **kinds[index % 3]})
    return found


def ask(served: Served, model: str, questions: dict[str, Any]) -> dict[str, str]:
    """Answers by id, as the text of their JSON."""
    body = {"model": model, "state": STATE, "questions": questions}
    answers = served.post("/v1/systemone", body)["answers"]
    return {name: json.dumps(answer) for name, answer in answers.items()}


@pytest.mark.parametrize("model", ["short", "told", "base"])
def test_others_change_no_bit(served: Served, model: str) -> None:
    random = np.random.default_rng(7)
    questions = pool(random)
    alone = [ask(served, model, {"q": question})["q"] for question in questions]
    assert len(set(alone)) > 10, "control: the questions have answers of their own"
    for _ in range(MIXTURES // 3):
        chosen = random.permutation(len(questions))[: int(random.integers(1, 40))].tolist()
        ids = {f"{random.integers(1 << 40)}-{at}": at for at in chosen}
        together = ask(served, model, {name: questions[at] for name, at in ids.items()})
        assert {name: alone[at] for name, at in ids.items()} == together
    assert served.metric("chorus_compiles_total", cause="request") == 0


def test_control_another_state_changes_the_answers(served: Served) -> None:
    question = {"q": {"type": "choice", "criteria": {"yes": None, "no": None}}}
    one = ask(served, "short", question)
    body = {"model": "short", "state": STATE + " then", "questions": question}
    assert json.dumps(served.post("/v1/systemone", body)["answers"]["q"]) != one["q"]
