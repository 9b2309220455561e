"""Beam search without a length penalty gives the sequences of the reference implementation (Hugging Face,
beam 4)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from chorus_server.engine.executor.testing import MemoryPrompts, tiny_executor
from chorus_server.engine.plans import Admission, BlockShape, DecodePlan, Ladder, PrefillPlan, RowLoad
from chorus_server.engine.sampling import Sampling
from chorus_server.model.checkpoints.opening import open_checkpoint
from chorus_server.model.t5 import assemble
from tests.places import ROOT

pytestmark = pytest.mark.usefixtures("compiled_quickly")
FIXTURES = ROOT / "tests" / "fixtures" / "parity"
LADDER = Ladder(((4, 192),), (BlockShape(192, 16, 16),), (), 64)


@pytest.mark.parametrize("name", ["t5_1_1", "t5_1_0", "mt5"])
def test_beam_4_without_penalty_is_the_reference_one(name: str) -> None:
    reader = open_checkpoint(FIXTURES / name)
    model = assemble(reader.config, "unrolled", "float32", reader.tensors(np.dtype(np.float32)))
    record: dict[str, Any] = json.loads((FIXTURES / name / "reference.json").read_text())
    with np.load(FIXTURES / name / "reference.npz") as arrays:
        prompt = arrays["prompt"]
    prompts = MemoryPrompts({"p": prompt})
    executor = tiny_executor(LADDER, prompts, model=model, prompt_rows=len(prompt), without=("plain",))
    V, step = executor.padded_vocab_size, 0
    searches = [search for search in record["beams"] if not search["early_stopping"]]
    assert len(searches) >= 8
    loads: tuple[RowLoad, ...] = (RowLoad("p", tuple(range(len(prompt)))),)
    compared = 0
    for start in range(0, len(searches), 4):
        batch = searches[start : start + 4]
        cases = [record["cases"][search["case"]] for search in batch]
        inputs = tuple((*range(V, V + case["prompt_length"]), *case["ids"]) for case in cases)
        sampling = Sampling(record["beam_tokens"], num_beams=4, length_penalty=0.0)
        admissions = tuple(
            Admission(row, 0, tuple(range(4 * row, 4 * row + 4)), sampling) for row in range(len(batch))
        )
        executor.collect(executor.dispatch(PrefillPlan(step, (4, 192), inputs, admissions, loads)))
        loads = ()
        found: dict[int, Any] = {}
        for _ in range(2):
            result = executor.collect(executor.dispatch(DecodePlan(step, 0, "grouped", 8)))
            found |= {done.leader: done.beams for done in result.beams}
        for row, search in enumerate(batch):
            ours = [[*beam.tokens, 1] if beam.ended else list(beam.tokens) for beam in found[4 * row]]
            assert ours == search["sequences"]
            scores = [beam.score for beam in found[4 * row]]
            np.testing.assert_allclose(scores, search["scores"], rtol=1e-4, atol=1e-4)
            compared += len(ours)
    assert compared >= 32
