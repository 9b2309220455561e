"""What is read out of programs lowered for a card: the calls, the arguments given away, the copies."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from chorus_server.engine.executor import Program
from tests.places import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "gpu"))
import lowered as reviewed
from scale import TOY


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return reviewed.review(TOY, reviewed.chosen(TOY, 0.2), 2)


def _named(found: dict[str, Any], start: str, end: str = "") -> dict[str, Any]:
    return next(each for name, each in found.items() if name.startswith(start) and name.endswith(end))


def test_attention_of_whole_sequences_is_the_cards_own(found: dict[str, Any]) -> None:
    assert _named(found, "encode")["custom_calls"] == {"__cudnn$fmhaScaleBiasSoftmax": 2}  # one a layer
    assert _named(found, "score")["custom_calls"] == {"__cudnn$fmhaSoftmax": 2}
    assert _named(found, "decode")["custom_calls"] == {}


def test_state_is_overwritten_and_a_plain_step_copies_no_encoder_memory(found: dict[str, Any]) -> None:
    for each in found.values():
        assert each["overwritten"] == each["donated"]
    assert _named(found, "admit")["donated"] > 0
    plain, grouped = (_named(found, "decode", end)["large"] for end in ("plain]", "grouped]"))
    memory = next(name.split()[1] for name in grouped if name.startswith("gather") and "x512x" in name)
    assert not [name for name in plain if memory in name]
    assert grouped[f"gather {memory} bf16"] == 4  # the control: keys and values of two layers
    assert [name for name in plain if name.startswith("scatter")]


def test_control_what_is_not_given_away_is_counted() -> None:
    held = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    kept = Program("kept", lambda x: jnp.flip(x) + x.T, (held,), held, donate=())
    seen = reviewed.lowered(kept, 64 * 64 * 4)
    assert (seen["donated"], seen["overwritten"]) == (0, 0)
    assert seen["large"] == {"reverse 64x64 f32": 1, "transpose 64x64 f32": 1, "add 64x64 f32": 1}
