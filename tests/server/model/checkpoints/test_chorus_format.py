"""Our own format: whole folders, parts, shardings, memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints import load_model, orbax_parts
from chorus_server.model.checkpoints.atomic_folder import whole_folder
from chorus_server.model.checkpoints.convert import convert_checkpoint, write_checkpoint, write_random
from chorus_server.model.checkpoints.vocabulary_files import fit_vocabulary
from chorus_server.model.t5 import tensors_of
from tests.server.model.checkpoints.checkpoint_samples import (
    F32,
    TINY,
    assert_same,
    configure,
    opened,
    read,
    train_vocabulary,
    weights,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(orbax_parts, "PART_BYTES", 20_000)  # several parts, even of a tiny model
    write_checkpoint(
        tmp_path / "m", TINY, weights(TINY).items(), to="orbax", dtype=F32, vocabulary=None, source="test"
    )
    return tmp_path / "m"


@pytest.mark.parametrize("layout", ["unrolled", "scanned"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loads_the_same_bits(folder: Path, layout: Any, dtype: str) -> None:
    assert len(list((folder / "tensors").iterdir())) > 2
    loaded = load_model(folder, layout=layout, dtype=dtype)
    expected = {
        name: array.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else F32)
        for name, array in weights(TINY).items()
    }
    assert_same({name: np.asarray(array) for name, array in tensors_of(loaded.model)}, expected)
    assert loaded.model.config == TINY


def test_parts_are_bounded(folder: Path) -> None:
    parts = json.loads((folder / "chorus.json").read_text())["parts"]
    sizes = {name: array.nbytes for name, array in weights(TINY).items()}
    assert all(sum(sizes[name] for name in part) <= 20_000 or len(part) == 1 for part in parts)


def test_vocabulary_travels(tmp_path: Path) -> None:
    vocabulary = train_vocabulary(tmp_path / "words.model")
    config, found = fit_vocabulary(TINY, vocabulary)
    write_random(config, tmp_path / "m", seed=1, vocabulary=found)
    loaded = load_model(tmp_path / "m")
    assert loaded.vocabulary is not None
    assert loaded.vocabulary.size == config.vocab_size == loaded.model.config.vocab_size
    assert (
        loaded.vocabulary_digest == json.loads((tmp_path / "m/chorus.json").read_text())["vocabulary_digest"]
    )
    convert_checkpoint(tmp_path / "m", tmp_path / "hf", to="hf")
    again = load_model(tmp_path / "hf")
    assert (again.fingerprint, again.vocabulary_digest) == (loaded.fingerprint, loaded.vocabulary_digest)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda f: shutil.rmtree(f / "tensors" / "00001"), "00001"),
        (lambda f: (f / "tensors" / "00001" / "_METADATA").unlink(), "00001"),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: configure(f, d_ff=38), "feed_forward.wi_0 has shape [26, 37], expected [26, 38]"),
        (lambda f: configure(f, num_decoder_layers=3), "lacks tensor decoder.layers.2"),
        (lambda f: configure(f, num_decoder_layers=1), "has tensor decoder.layers.1"),
        (lambda f: configure(f, colour=1), "unknown field colour"),
        (lambda f: configure(f, d_model=None), "not complete"),
        (lambda f: (f / "chorus.json").write_text('{"format": "chorus-checkpoint"}'), "version None"),
    ],
)
def test_damage_is_named(folder: Path, damage: Any, expected: str) -> None:
    damage(folder)
    with pytest.raises(InvalidModelError) as caught:
        load_model(folder)
    assert expected in caught.value.message


def test_target_that_exists_is_left_alone(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(InvalidModelError, match="exists already"):
        write_random(TINY, folder, seed=1)
    assert sorted(folder.rglob("*")) == before


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    def tensors() -> Any:
        yield from list(weights(TINY).items())[:5]
        raise InvalidModelError("the source broke")

    with pytest.raises(InvalidModelError, match="the source broke"):
        write_checkpoint(
            tmp_path / "m", TINY, tensors(), to="orbax", dtype=F32, vocabulary=None, source="test"
        )
    assert list(tmp_path.iterdir()) == []


def test_folder_is_flushed_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(str((tmp_path / "m").exists())))
    with whole_folder(tmp_path / "m") as made:
        (made / "file").write_text("x")
    assert seen == ["False", "False", "True"]


SHARDED = """
import sys, jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from chorus_server.model.checkpoints import load_model
from chorus_server.model.t5 import tensors_of
mesh = Mesh(np.array(jax.devices()), ("model",))
cut = {"heads": None, "mlp": None, "vocab": "model", "embed": None, "buckets": None, "layers": None}
asked = {}
def sharding(axes):
    asked[axes] = NamedSharding(mesh, P(*(cut[axis] for axis in axes)))
    return asked[axes]
model = load_model(sys.argv[1], dtype=sys.argv[2], sharding=sharding).model
plain = load_model(sys.argv[1], dtype=sys.argv[2]).model
assert len(jax.devices()) == 4
for (name, array), (_, expected) in zip(tensors_of(model), tensors_of(plain), strict=True):
    assert len(array.sharding.device_set) == 4, name
    np.testing.assert_array_equal(np.asarray(array), np.asarray(expected))
embedding = dict(tensors_of(model))["embedding"]
assert {shard.data.shape for shard in embedding.addressable_shards} == {(42, 26)}, embedding.sharding
print("sharded")
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_restores_into_a_sharding(folder: Path, dtype: str) -> None:
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-c", SHARDED, str(folder), dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.stdout.strip() == "sharded", done.stderr


def test_reading_from_a_server_never_opens_torch_files(tmp_path: Path) -> None:
    from tests.server.model.checkpoints.checkpoint_samples import CHECKPOINTS

    with pytest.raises(InvalidModelError, match="chorus models convert"):
        load_model(CHECKPOINTS / "sharded_f32")
    convert_checkpoint(CHECKPOINTS / "sharded_f32", tmp_path / "m", options=_allowing_torch())
    assert_same(read(tmp_path / "m"), read(CHECKPOINTS / "sharded_f32" / "expected"))
    assert isinstance(jax.tree.leaves(load_model(tmp_path / "m").model.params)[0], jax.Array)
    assert opened(tmp_path / "m").format == "chorus"


def _allowing_torch() -> Any:
    from chorus_server.model.checkpoints import OpenOptions

    return OpenOptions(allow_torch=True)
