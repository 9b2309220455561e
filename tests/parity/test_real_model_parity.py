"""A real pretrained T5 agrees with the reference; its weights are in ../shared, the reference numbers are
committed.

The run over 500 sentences is `benchmarks/parity`, its outcome in `benchmarks/results`.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from chorus_server.model.checkpoints.load import load_model
from chorus_server.model.decoding import greedy_tokens


@pytest.mark.shared
def test_the_real_model_agrees_with_the_reference(real_model: Path, fixtures: Path) -> None:
    record = json.loads((fixtures / "flan_t5_small_title.json").read_text())
    loaded = load_model(real_model)
    model, vocabulary = loaded.model, loaded.vocabulary
    assert vocabulary is not None
    functions, V, cases = model.functions, model.config.padded_vocab_size, record["cases"]
    assert {case["prompt_length"] for case in cases} == {0, 1, 20, 100, 150}
    prompt = np.asarray(model.params["embedding"])[record["prompt_ids"]] * np.float32(record["prompt_scale"])
    rows = [[*range(V, V + case["prompt_length"]), *vocabulary.encode(case["text"]), 1] for case in cases]
    assert [row[case["prompt_length"] :] for row, case in zip(rows, cases, strict=True)] == [
        case["ids"] for case in cases
    ]
    assert max(map(len, rows)) > 300
    positions = record["positions"]
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    targets = np.zeros((len(rows), 1, positions), np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        greedy = cases[index]["greedy"][:positions]
        targets[index, 0, : len(greedy)] = greedy
    lengths = np.array([len(row) for row in rows], np.int32)
    encoded = jax.jit(functions.encode)(model.params, prompt, ids, lengths)
    whole = np.full((len(rows), 1), positions, np.int32)
    logits = np.asarray(jax.jit(functions.decode_targets)(model.params, encoded, lengths, targets, whole))
    with np.load(fixtures / "flan_t5_small_title.npz", allow_pickle=False) as arrays:
        difference = total = 0.0
        for index in range(len(rows)):
            expected = arrays[f"logits_{index}"].astype(np.float64)
            got = logits[index, 0, : len(expected), :: record["column_step"]]
            difference += float(((got - expected) ** 2).sum())
            total += float((expected**2).sum())
    assert (difference / total) ** 0.5 <= 1e-5
    assert greedy_tokens(model, encoded, lengths, record["new_tokens"]) == [case["greedy"] for case in cases]
    for ids_, text in record["decoded"]:
        assert vocabulary.decode(ids_) == text
