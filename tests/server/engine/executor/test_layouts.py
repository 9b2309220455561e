"""The same plans on the other model layout, in bf16, and on a mesh."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from chorus_server.engine.executor import JaxExecutor
from chorus_server.engine.executor.testing import MemoryPrompts, tiny_executor, tiny_model
from chorus_server.engine.plans import Admission, BlockShape, DecodePlan, Ladder, PrefillPlan, RowLoad
from chorus_server.engine.sampling import Sampling
from chorus_server.model.mesh import device_mesh

LADDER = Ladder(((4, 16),), (BlockShape(24, 6, 6),), (), 4)
PROMPT = np.random.default_rng(0).normal(size=(3, 26)).astype(np.float32)


def _answers(executor: JaxExecutor) -> Any:
    V = executor.padded_vocab_size
    plan = PrefillPlan(
        0,
        (4, 16),
        ((V + 9, V, V + 1, 7, 1), (8, 9, 1), (V, 1)),
        (
            Admission(0, 0, (1,), Sampling(6)),
            Admission(1, 0, (2, 0), Sampling(6, num_beams=2)),
            Admission(2, 0, (3, 5), Sampling(6, temperature=1.0, seed=3)),
        ),
        (RowLoad("p", (9, 0, 1)),),
    )
    executor.collect(executor.dispatch(plan))
    result: Any = executor.collect(executor.dispatch(DecodePlan(1, 0, "grouped", 6)))
    return [slot.tokens for slot in result.slots], [beam.tokens for beam in result.beams[0].beams]


@pytest.fixture(scope="module")
def unrolled() -> JaxExecutor:
    return tiny_executor(LADDER, MemoryPrompts({"p": PROMPT}), without=("plain",))


def test_stacked_layers_give_the_tokens_of_separate_ones(unrolled: JaxExecutor) -> None:
    model = tiny_model(layout="scanned")
    scanned = tiny_executor(LADDER, MemoryPrompts({"p": PROMPT}), model=model, without=("plain",))
    assert _answers(scanned) == _answers(unrolled)


def test_bf16_runs_every_program_and_reports_in_f32() -> None:
    prompts = MemoryPrompts({"p": PROMPT.astype(ml_dtypes.bfloat16)})
    executor = tiny_executor(LADDER, prompts, model=tiny_model(dtype="bfloat16"), without=("plain",))
    tokens, beams = _answers(executor)
    assert len(tokens) == 3 and all(tokens) and beams[0]


def test_a_model_on_a_mesh_gives_the_same_answers(unrolled: JaxExecutor) -> None:
    mesh = device_mesh(1, 1)
    prompts, model = MemoryPrompts({"p": PROMPT}), tiny_model(mesh=mesh)
    executor = tiny_executor(LADDER, prompts, model=model, without=("plain",))
    assert executor._table.sharding == mesh.prompt_rows
    assert _answers(executor) == _answers(unrolled)
