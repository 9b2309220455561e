"""A PEFT prompt served through step plans gives PEFT's own greedy tokens (fixtures made by real PEFT)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from chorus_server.engine.executor import JaxExecutor
from chorus_server.engine.executor.testing import MemoryPrompts, tiny_executor
from chorus_server.engine.plans import Admission, BlockShape, DecodePlan, Ladder, PrefillPlan, RowLoad
from chorus_server.engine.sampling import Sampling
from chorus_server.model.checkpoints.opening import open_checkpoint
from chorus_server.model.t5 import assemble
from tests.places import ROOT

FIXTURES = ROOT / "tests" / "fixtures" / "artifacts"
LADDER = Ladder(((6, 48),), (BlockShape(48, 16, 24),), (), 16)
GREEDY: dict[str, Any] = json.loads((FIXTURES / "peft_greedy.json").read_text())
LENGTH = int(GREEDY["virtual_tokens"])


def _rows(name: str) -> np.ndarray[Any, Any]:
    """The prompt of an adapter: PEFT's second submodule's rows never take part."""
    return load_file(FIXTURES / name / "adapter_model.safetensors")["prompt_embeddings"][:LENGTH]


@pytest.fixture(scope="module")
def executor() -> JaxExecutor:
    reader = open_checkpoint(FIXTURES / "peft_base")
    model = assemble(reader.config, "unrolled", "float32", reader.tensors(np.dtype(np.float32)))
    prompts = MemoryPrompts({name: _rows(name) for name in ("peft_one", "peft_two")})
    return tiny_executor(LADDER, prompts, model=model, prompt_rows=32, output_width=16, without=("grouped",))


def _until_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(1) + 1] if 1 in tokens else tokens


def test_three_prompts_mixed_in_every_batch_give_pefts_greedy_tokens(executor: JaxExecutor) -> None:
    V = executor.padded_vocab_size
    # Rows of one prompt need not be neighbours.
    places = {"base": (), "peft_one": (3, 30, 1, 2, 9), "peft_two": (10, 4, 11, 31, 0)}
    loads = tuple(RowLoad(name, rows) for name, rows in places.items() if rows)
    wanted = [(name, text) for text in range(len(GREEDY["inputs"])) for name in places]
    answers: dict[tuple[str, int], list[int]] = {}
    for start in range(0, len(wanted), 6):
        batch = wanted[start : start + 6]
        inputs = tuple((*(V + row for row in places[name]), *GREEDY["inputs"][text]) for name, text in batch)
        sampling = Sampling(GREEDY["max_new_tokens"])
        admissions = tuple(Admission(row, 0, (23 - 2 * row,), sampling) for row in range(len(batch)))
        executor.collect(executor.dispatch(PrefillPlan(start, (6, 48), inputs, admissions, loads)))
        loads = ()
        result = executor.collect(executor.dispatch(DecodePlan(start + 1, 0, "plain", 16)))
        by_slot = {slot.slot: list(slot.tokens) for slot in result.slots}
        answers |= {key: by_slot[23 - 2 * row] for row, key in enumerate(batch)}
    for (name, text), tokens in answers.items():
        assert tokens == _until_end(GREEDY["greedy"][name][text])
    assert len(answers) == 3 * len(GREEDY["inputs"])
