"""Settings that change logits, and Hugging Face's length penalty, give the answers of its `generate`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from chorus_server.engine.executor.jax_executor import JaxExecutor
from chorus_server.engine.executor.testing import MemoryPrompts, tiny_executor
from chorus_server.engine.plans import Admission, BlockShape, DecodePlan, Ladder, PrefillPlan, RowLoad
from chorus_server.engine.sampling import Sampling
from chorus_server.model.checkpoints.opening import open_checkpoint
from chorus_server.model.t5 import assemble
from tests.places import ROOT

pytestmark = pytest.mark.usefixtures("compiled_quickly")
FOLDER = ROOT / "tests" / "fixtures" / "parity" / "t5_1_1"
LADDER = Ladder(((4, 192),), (BlockShape(192, 16, 16),), (), 64)
REFERENCE: dict[str, Any] = json.loads((FOLDER / "settings.json").read_text())
CASES: list[dict[str, Any]] = json.loads((FOLDER / "reference.json").read_text())["cases"]


@pytest.fixture(scope="module")
def executor() -> JaxExecutor:
    reader = open_checkpoint(FOLDER)
    model = assemble(reader.config, "unrolled", "float32", reader.tensors(np.dtype(np.float32)))
    with np.load(FOLDER / "reference.npz") as arrays:
        prompt = arrays["prompt"]
    prompts = MemoryPrompts({"p": prompt})
    executor = tiny_executor(LADDER, prompts, model=model, prompt_rows=len(prompt), without=("plain",))
    load = RowLoad("p", tuple(range(len(prompt))))
    executor.collect(executor.dispatch(PrefillPlan(0, (4, 192), ((5, 1),), (), (load,))))
    return executor


def _answer(executor: JaxExecutor, case: dict[str, Any], sampling: Sampling) -> tuple[Any, Any]:
    """(sequences with `</s>`, scores), best first."""
    V, slots = executor.padded_vocab_size, tuple(range(3, 3 + sampling.num_beams))
    ids = (*range(V, V + case["prompt_length"]), *case["ids"])
    plan = PrefillPlan(1, (4, 192), (ids,), (Admission(0, 0, slots, sampling),))
    executor.collect(executor.dispatch(plan))
    tokens: tuple[int, ...] = ()
    for step in range(2):
        result: Any = executor.collect(executor.dispatch(DecodePlan(step, 0, "grouped", 8)))
        for search in result.beams:
            sequences = [[*beam.tokens, 1] if beam.ended else [*beam.tokens] for beam in search.beams]
            return sequences, [beam.score for beam in search.beams]
        tokens += sum((slot.tokens for slot in result.slots), ())
    return [[*tokens]], []


@pytest.mark.parametrize("place", range(len(REFERENCE["answers"])))
def test_the_answer_is_the_references(executor: JaxExecutor, place: int) -> None:
    expected = REFERENCE["answers"][place]
    settings = {"length_penalty_rule": "huggingface"} | expected["settings"]
    sampling = Sampling.of({"max_new_tokens": REFERENCE["new_tokens"], **settings})
    sequences, scores = _answer(executor, CASES[expected["case"]], sampling)
    assert sequences == expected["sequences"]
    np.testing.assert_allclose(scores, expected["scores"], rtol=1e-4, atol=1e-4)


def test_without_their_settings_the_answers_differ(executor: JaxExecutor) -> None:
    """The control: settings that were dropped on the way would be noticed."""
    asked = [each for each in REFERENCE["answers"] if not each["scores"]]
    plain = [_answer(executor, CASES[each["case"]], Sampling(REFERENCE["new_tokens"]))[0] for each in asked]
    assert sum(one != each["sequences"] for one, each in zip(plain, asked, strict=True)) > len(asked) // 2
