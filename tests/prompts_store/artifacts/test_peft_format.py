"""Adapters made by the real PEFT: the same rows, and through our own model the same greedy tokens."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from chorus_server.model.checkpoints import load_model
from chorus_server.model.functions import Functions
from chorus_server.model.t5 import Model
from prompts_store.artifacts import Artifact, ArtifactLimits, read_artifact, write_artifact
from prompts_store.artifacts.peft_config import parse_config
from prompts_store.errors import ArtifactError
from tests.places import ROOT

FIXTURES = ROOT / "tests" / "fixtures" / "artifacts"
REFERENCE = json.loads((FIXTURES / "peft_greedy.json").read_text())
LIMITS = ArtifactLimits(width=22, max_length=16)
ADAPTERS = ("peft_one", "peft_two")
OTHERS = tuple(REFERENCE["others"])
"""P-tuning by its folder's name, multitask prompt tuning as NAME[TASK]."""
END = 1
LONGEST = 48


def stored_rows(name: str) -> np.ndarray[Any, Any]:
    return safetensors.numpy.load_file(FIXTURES / name / "adapter_model.safetensors")["prompt_embeddings"]


def zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_the_first_rows_are_the_prompt(name: str, packed: bool) -> None:
    source = zipped(FIXTURES / name) if packed else FIXTURES / name
    artifact = read_artifact(source, limits=LIMITS)
    assert artifact.values.tobytes() == stored_rows(name)[: REFERENCE["virtual_tokens"]].tobytes()
    assert artifact.metadata.base_model_name == "peft_base"
    assert artifact.format == "peft"


def read_other(entry: str, **chosen: int) -> Artifact:
    """The prompt of one of `OTHERS`."""
    name, _, index = entry.removesuffix("]").partition("[")
    if index:
        chosen = {"task_index": int(index), **chosen}
    return read_artifact(FIXTURES / name, limits=LIMITS, **chosen)


@pytest.mark.parametrize("entry", OTHERS)
def test_other_kinds_give_the_rows_that_peft_computes(entry: str) -> None:
    reference = REFERENCE["others"][entry]
    assert read_other(entry).values.tobytes().hex() == reference["rows"]
    # What PEFT computes with these rows, before the input by hand, is what it computes by itself.
    assert reference["logits_difference"] == 0.0


def test_control_a_sum_that_is_rounded_twice_a_rank_gives_other_bits() -> None:
    stored = safetensors.numpy.load_file(FIXTURES / "peft_tasks" / "adapter_model.safetensors")
    columns, rows = stored["prefix_task_cols"][1, :5], stored["prefix_task_rows"][1]
    total = np.zeros((5, LIMITS.width), np.float32)
    for rank in range(len(rows)):
        total += columns[:, rank, None] * rows[rank]
    folded = stored["prompt_embeddings"][:5] * total
    expected = read_other("peft_tasks[1]").values
    np.testing.assert_allclose(folded, expected, rtol=1e-4)
    assert folded.tobytes() != expected.tobytes()


def test_one_upload_of_several_tasks_needs_to_say_which() -> None:
    for chosen, says in ({}, "task_index, 0 to 2"), ({"task_index": 3}, "it holds tasks 0 to 2"):
        with pytest.raises(ArtifactError, match=says) as caught:
            read_artifact(FIXTURES / "peft_tasks", limits=LIMITS, **chosen)
        assert caught.value.code == "peft_task"
        assert caught.value.field == ("task_index" if chosen else "file")
    with pytest.raises(ArtifactError, match="leave task_index out"):
        read_artifact(FIXTURES / "peft_one", limits=LIMITS, task_index=0)
    digests = {read_other(f"peft_tasks[{task}]").digest for task in range(3)}
    assert len(digests) == 3
    assert read_other("peft_tasks[2]").task_index == 2
    assert read_artifact(FIXTURES / "peft_one", limits=LIMITS).task_index is None


def test_what_was_widened_or_dropped_is_told_of_other_kinds_too() -> None:
    (widened,) = read_other("peft_tasks_f16[0]").notes
    assert "float16" in widened
    (dropped,) = read_other("peft_tasks[0]").notes
    assert "5 of 10 rows" in dropped and "generate does not use" in dropped


def test_dropping_the_second_submodule_is_told() -> None:
    assert read_artifact(FIXTURES / "peft_one", limits=LIMITS).notes == ()
    (note,) = read_artifact(FIXTURES / "peft_two", limits=LIMITS).notes
    assert "5 of 10 rows" in note and "dropped" in note
    assert len(stored_rows("peft_two")) == 10


def test_a_pickled_adapter_is_refused_with_what_to_do() -> None:
    for source in (FIXTURES / "peft_bin", zipped(FIXTURES / "peft_bin")):
        with pytest.raises(ArtifactError, match="safe_serialization=True") as caught:
            read_artifact(source, limits=LIMITS)
        assert caught.value.code == "peft_pickle"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The model that the adapters are for, in f32; a copy, so that loading writes nothing into the
    repository."""
    folder = shutil.copytree(FIXTURES / "peft_base", tmp_path_factory.mktemp("base") / "peft_base")
    return load_model(folder).model


@cache
def programs(functions: Functions) -> tuple[Any, Any]:
    """The compiled encoder and decoder."""
    return jax.jit(functions.encode), jax.jit(functions.decode_targets)


def greedy(base: Model, prompt: np.ndarray[Any, Any]) -> list[list[int]]:
    """Greedy tokens of every reference input after the prompt's rows, `</s>` included."""
    inputs = REFERENCE["inputs"]
    rows = len(inputs)
    # One shape for every prompt, so that each program is compiled once.
    ids = np.zeros((rows, LONGEST), np.int32)
    table = np.zeros((LIMITS.max_length, base.config.d_model), np.float32)
    table[: len(prompt)] = prompt
    lengths = np.array([len(row) + len(prompt) for row in inputs], np.int32)
    for i, row in enumerate(inputs):
        positions = [base.config.padded_vocab_size + r for r in range(len(prompt))]
        ids[i, : lengths[i]] = positions + row
    encode, decode = programs(base.functions)
    encoded = encode(base.params, jnp.asarray(table), jnp.asarray(ids), jnp.asarray(lengths))
    steps = REFERENCE["max_new_tokens"]
    tokens = np.zeros((rows, 1, steps), np.int32)
    for step in range(steps):
        # Position t of the logits sees the start token and targets before t, so later zeros do not matter.
        logits = decode(
            base.params,
            encoded,
            jnp.asarray(lengths),
            jnp.asarray(tokens),
            jnp.full((rows, 1), steps, jnp.int32),
        )
        tokens[:, 0, step] = np.asarray(logits)[:, 0, step].argmax(-1)
    return [until_end(row) for row in tokens[:, 0].tolist()]


def until_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(END) + 1] if END in tokens else tokens


@pytest.mark.parametrize("name", [*ADAPTERS, *OTHERS])
def test_the_same_greedy_tokens_as_peft(base: Model, name: str) -> None:
    artifact = read_other(name)
    assert greedy(base, artifact.values) == REFERENCE["greedy"][name]
    # And after the way back: what we write is what was read.
    again = read_artifact(write_artifact(artifact.values, "peft"), limits=LIMITS)
    assert again.digest == artifact.digest


def test_control_the_other_rows_or_none_give_other_tokens(base: Model) -> None:
    expected = REFERENCE["greedy"]["peft_two"]
    rows = stored_rows("peft_two")
    assert greedy(base, rows) != expected
    assert greedy(base, rows[5:]) != expected
    assert greedy(base, rows[:0]) == REFERENCE["greedy"]["base"] != expected


@pytest.mark.parametrize(
    ("name", "kept"),
    [("google/t5-small", "google/t5-small"), ("", None), ("\x1b[2J", None), ("x" * 300, None), (7, None)],
)
def test_the_base_model_s_name_is_kept_only_when_it_can_be_shown(name: object, kept: str | None) -> None:
    config = json.loads((FIXTURES / "peft_one" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = name
    assert parse_config(json.dumps(config).encode()).base_model_name == kept
