"""int8 at rest: a quarter of the bytes, near the same answers, the parent's fingerprint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

from chorus_server.checkpoints_cli import models
from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints import load_model, orbax_parts
from chorus_server.model.checkpoints.convert import convert_checkpoint, write_checkpoint
from chorus_server.model.checkpoints.quantised import channel_axis, is_quantised, quantise
from chorus_server.model.checkpoints.verify import verify_fingerprint
from tests.server.model.checkpoints.checkpoint_samples import F32, TINY, assert_same, opened, read, weights


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    write_checkpoint(
        tmp_path / "f32", TINY, weights(TINY).items(), to="orbax", dtype=F32, vocabulary=None, source="test"
    )
    return tmp_path / "f32"


@pytest.fixture
def small(parent: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(orbax_parts, "PART_BYTES", 3_000)  # parts end in many places
    convert_checkpoint(parent, parent.with_name("int8"), dtype="int8")
    return parent.with_name("int8")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def logits(folder: Path) -> Any:
    model = load_model(folder).model
    ids = jnp.asarray(np.random.default_rng(0).integers(3, 160, (4, 12)))
    lengths, none = jnp.full(4, 12), jnp.zeros((1, TINY.d_model))

    @jax.jit
    def run(params: Any) -> Any:
        encoded = model.functions.encode(params, none, ids, lengths)
        return model.functions.decode_targets(params, encoded, lengths, ids[:, None, :6], jnp.full((4, 1), 6))

    return np.asarray(run(model.params))


def test_every_value_is_within_half_a_step(small: Path, parent: Path) -> None:
    stored, original = read(small), read(parent)
    assert set(stored) == set(original)
    for name, array in original.items():
        if not is_quantised(name, array.shape):
            np.testing.assert_array_equal(stored[name], array)
            continue
        step = np.abs(array).max(axis=1 - channel_axis(name), keepdims=True) / 127
        assert (np.abs(stored[name] - array) <= 0.5001 * step).all(), name
        # The control: scales of the other axis would not do.
        other = np.abs(array).max(axis=channel_axis(name), keepdims=True) / 127
        assert not (np.abs(stored[name] - array) <= 0.5001 * np.minimum(step, other)).all(), name


def test_a_channel_of_zeros_stays_zero() -> None:
    values, scales = quantise("head", np.zeros((3, 2), np.float32))
    assert not values.any() and (scales == 1).all()


def test_logits_move_little(small: Path, parent: Path) -> None:
    before, after = logits(parent), logits(small)
    assert 0 < np.linalg.norm(after - before) < 0.03 * np.linalg.norm(before)


def test_it_is_its_parents_heir(small: Path, parent: Path, tmp_path: Path) -> None:
    reader, fingerprint = opened(small), opened(parent).fingerprint
    assert reader.fingerprint == fingerprint == load_model(small).fingerprint
    assert reader.content_fingerprint not in (None, fingerprint)
    assert verify_fingerprint(reader) == fingerprint
    # Written out again it is a model of its own: its values are not the parent's.
    again = convert_checkpoint(small, tmp_path / "again")
    assert again.fingerprint == reader.content_fingerprint and again.dtype == "float32"
    assert_same(read(small), read(tmp_path / "again"))
    # Quantised again it is the same, and still the parent's heir.
    twice = convert_checkpoint(small, tmp_path / "twice", dtype="int8")
    assert twice.fingerprint == fingerprint
    assert_same(read(small), read(tmp_path / "twice"))


def test_damage_is_found(small: Path) -> None:
    path = small / "chorus.json"
    document = json.loads(path.read_text())
    for change, message in (
        ({"quantisation": {"kind": "int3"}}, "does not read"),
        (
            {"parts": [[n for n in part if n != "head.scale"] for part in document["parts"]]},
            r"lacks tensor head\.scale",
        ),
    ):
        path.write_text(json.dumps({**document, **change}))
        with pytest.raises(InvalidModelError, match=message):
            read(small)
    wrong = {**document, "quantisation": {**document["quantisation"], "fingerprint": "0" * 64}}
    path.write_text(json.dumps(wrong))
    with pytest.raises(InvalidModelError, match="says that its fingerprint is 0000"):
        verify_fingerprint(opened(small))


def test_the_command_says_what_it_made(parent: Path) -> None:
    target = parent.with_name("made")
    done = CliRunner().invoke(models, ["convert", str(parent), str(target), "--dtype", "int8", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["dtype"] == "int8"
    refused = CliRunner().invoke(
        models, ["convert", str(parent), str(target) + "2", "--dtype", "int8", "--to", "hf"]
    )
    assert refused.exit_code == 1 and "orbax" in refused.output


def test_a_wide_model_takes_a_quarter(tmp_path: Path) -> None:
    wide = replace(TINY, name="wide", d_model=128, d_ff=512, d_kv=32)
    write_checkpoint(
        tmp_path / "f", wide, weights(wide).items(), to="orbax", dtype=F32, vocabulary=None, source="test"
    )
    convert_checkpoint(tmp_path / "f", tmp_path / "i", dtype="int8")
    assert size_of(tmp_path / "i") < 0.3 * size_of(tmp_path / "f")
