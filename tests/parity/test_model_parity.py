"""Numbers and tokens of the reference implementation, from the committed fixtures."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest

from chorus_server.model.checkpoints.load import load_model
from chorus_server.model.decoding import greedy_tokens
from chorus_server.model.layout import LAYOUTS, Layout
from chorus_server.model.t5 import Model, assemble, tensors_of
from tests.places import ROOT

NAMES = ["t5_1_1", "t5_1_0", "mt5"]
FIXTURES = ROOT / "tests" / "fixtures" / "parity"
TARGET = 1e-5


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one of our models says to every case of a fixture, all cases in one padded batch."""

    lengths: Any
    encoded: Any
    logits: Any


@cache
def _reference(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    with np.load(FIXTURES / name / "reference.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return json.loads((FIXTURES / name / "reference.json").read_text()), arrays


@cache
def _model(name: str, layout: Layout = "unrolled", dtype: str = "float32") -> Model:
    return load_model(FIXTURES / name, layout=layout, dtype=dtype).model


def _answers(model: Model, name: str) -> Answers:
    record, arrays = _reference(name)
    cases, V, functions = record["cases"], model.config.padded_vocab_size, model.functions
    rows = [[*range(V, V + case["prompt_length"]), *case["ids"]] for case in cases]
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    targets = np.zeros((len(rows), 1, max(len(case["target"]) for case in cases)), np.int32)
    for index, (row, case) in enumerate(zip(rows, cases, strict=True)):
        ids[index, : len(row)] = row
        targets[index, 0, : len(case["target"])] = case["target"]
    lengths = np.array([len(row) for row in rows], np.int32)
    target_lengths = np.array([[len(case["target"])] for case in cases], np.int32)
    encoded = jax.jit(functions.encode)(model.params, arrays["prompt"], ids, lengths)
    logits = jax.jit(functions.decode_targets)(model.params, encoded, lengths, targets, target_lengths)
    return Answers(lengths, np.asarray(encoded, np.float32), np.asarray(logits)[:, 0])


_cached_answers = cache(lambda name, layout, dtype: _answers(_model(name, layout, dtype), name))


def _error(got: list[Any], expected: list[Any]) -> float:
    """Relative L2 error over all arrays together."""
    difference = sum(
        float(((a.astype(np.float64) - b) ** 2).sum()) for a, b in zip(got, expected, strict=True)
    )
    return float((difference / sum(float((b.astype(np.float64) ** 2).sum()) for b in expected)) ** 0.5)


def _logits_error(answers: Answers, name: str) -> float:
    record, arrays = _reference(name)
    expected = [arrays[f"logits_{index}"] for index in range(len(record["cases"]))]
    return _error([answers.logits[index, : len(e)] for index, e in enumerate(expected)], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_logits_with_and_without_prompts(name: str, layout: Layout) -> None:
    record, _ = _reference(name)
    assert {case["prompt_length"] for case in record["cases"]} == {0, 1, 20, 100, 150}
    assert _logits_error(_cached_answers(name, layout, "float32"), name) <= TARGET


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_greedy_tokens(name: str, layout: Layout) -> None:
    record, _ = _reference(name)
    answers = _cached_answers(name, layout, "float32")
    tokens = greedy_tokens(_model(name, layout), answers.encoded, answers.lengths, record["greedy_tokens"])
    assert tokens == [case["greedy"] for case in record["cases"]]


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_alone(name: str) -> None:
    answers, (_, arrays) = _cached_answers(name, "unrolled", "float32"), _reference(name)
    known = {int(key.split("_")[1]): value for key, value in arrays.items() if key.startswith("encoded")}
    assert len(known) >= 6
    assert _error([answers.encoded[i, : len(v)] for i, v in known.items()], list(known.values())) <= TARGET
    for index, value in known.items():
        assert not answers.encoded[index, len(value) :].any()


def test_positions_past_128_on_both_sides() -> None:
    """One input of more than 300 positions, and one target of 140, each by itself."""
    record, arrays = _reference("t5_1_1")
    answers = _cached_answers("t5_1_1", "unrolled", "float32")
    lengths = [case["prompt_length"] + len(case["ids"]) for case in record["cases"]]
    longest = int(np.argmax(lengths))
    assert lengths[longest] > 300
    target = next(i for i, case in enumerate(record["cases"]) if len(case["target"]) > 128)
    for index in (longest, target):
        expected = arrays[f"logits_{index}"]
        assert _error([answers.logits[index, : len(expected)]], [expected]) <= TARGET


@pytest.mark.parametrize("name", NAMES)
def test_bf16_is_within_its_rounding(name: str) -> None:
    """Not worse than twice what the reference itself loses in bf16."""
    record, _ = _reference(name)
    error = _logits_error(_cached_answers(name, "unrolled", "bfloat16"), name)
    assert TARGET < error <= 2 * record["bf16_relative_l2"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("t5_1_1", {"relative_max_distance": 100}),
        ("t5_1_1", {"norm_epsilon": 1e-2}),
        ("t5_1_0", {"activation": "gelu"}),
        ("mt5", {"activation": "relu"}),
    ],
)
def test_control_a_slightly_wrong_model_is_caught(name: str, change: dict[str, Any]) -> None:
    model = _model(name)
    wrong = assemble(dataclasses.replace(model.config, **change), "unrolled", "float32", tensors_of(model))
    assert _logits_error(_answers(wrong, name), name) > 10 * TARGET


def test_control_a_tied_head_must_be_scaled() -> None:
    """Unscaled, the logits are off by sqrt(d_model) and greedy tokens would still agree: only logits show
    it."""
    record, arrays = _reference("t5_1_0")
    answers = _cached_answers("t5_1_0", "unrolled", "float32")
    unscaled = answers.logits * np.float32(_model("t5_1_0").config.d_model ** 0.5)
    expected = [arrays[f"logits_{index}"] for index in range(len(record["cases"]))]
    assert _error([unscaled[i, : len(e)] for i, e in enumerate(expected)], expected) > 1
