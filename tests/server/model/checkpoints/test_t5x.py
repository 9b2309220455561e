"""T5X checkpoints: ours, a real one, damaged ones; from a folder, a URL, and a bucket."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgpack
import numpy as np
import pytest

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.flax_msgpack import Packed, flatten, pack_array, unpack
from chorus_server.model.checkpoints.kvstores import folder_spec
from chorus_server.model.checkpoints.t5x_writer import write_t5x
from tests.server.model.checkpoints.checkpoint_samples import (
    CHECKPOINTS,
    F32,
    TIED,
    TINY,
    assert_same,
    opened,
    read,
    shared,
    weights,
)

OWN = CHECKPOINTS / "t5x_own" / "checkpoint_1000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "t5" / "checkpoint_1000"
    shutil.copytree(OWN, target)
    return target


@pytest.mark.parametrize("config", [TINY, TIED], ids=["1.1", "1.0"])
@pytest.mark.parametrize("inline", [0, 1 << 30], ids=["zarr", "msgpack"])
def test_architecture_is_inferred(tmp_path: Path, config: Any, inline: int) -> None:
    expected = weights(config)
    write_t5x(tmp_path, config, expected.items(), vocabulary=None, inline_bytes=inline)
    assert len(list(tmp_path.glob("target.*"))) == (
        0 if inline else sum(a.ndim == 2 for a in expected.values()) - 2
    )
    reader = opened(tmp_path, vocab_size=config.vocab_size, name=config.name)
    assert reader.config == config
    assert_same(dict(reader.tensors(F32)), expected)


def test_flags_say_what_shapes_cannot(folder: Path) -> None:
    config = opened(folder, relative_max_distance=50, activation="relu", vocab_size=90, name="mine").config
    assert (config.relative_max_distance, config.activation, config.vocab_size, config.name) == (
        50,
        "relu",
        90,
        "mine",
    )
    default = opened(folder).config
    assert (default.relative_max_distance, default.activation, default.name) == (128, "gelu", "t5")


def test_latest_step_of_a_folder_of_steps(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "checkpoint_90")
    shutil.copytree(folder, folder.parent / "checkpoint_20000.tmp-1")
    assert opened(folder.parent).identity == opened(folder).identity


@pytest.mark.parametrize(
    "source", ["s3://b/f", "gs://", "gs://UPPER/f", "file://host/f", "http://h/f", "gs://a b/c"]
)
def test_addresses_that_cannot_be(source: str) -> None:
    with pytest.raises(InvalidModelError, match="neither gs://"):
        folder_spec(source)


def test_address_to_store() -> None:
    assert folder_spec("gs://t5-data/a/b/") == {"driver": "gcs", "bucket": "t5-data", "path": "a/b/"}
    assert folder_spec("file:///a/b") == {"driver": "file", "path": "/a/b/"}


def test_file_address_reads_the_same(folder: Path) -> None:
    assert_same(read(f"file://{folder}"), read(folder))


def test_missing_zarr_folder_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "target.decoder.logits_dense.kernel")
    with pytest.raises(InvalidModelError, match=r"tensor decoder/logits_dense/kernel is missing"):
        opened(folder)


def test_missing_chunk_is_named_not_zeros(folder: Path) -> None:
    (folder / "target.encoder.layers_0.mlp.wo.kernel" / "0.0").unlink()
    with pytest.raises(InvalidModelError, match=r"tensor encoder/layers_0/mlp/wo/kernel cannot be read"):
        read(folder)


def test_damaged_chunk_is_named(folder: Path) -> None:
    chunk = folder / "target.encoder.layers_0.mlp.wo.kernel" / "0.0"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    with pytest.raises(InvalidModelError, match=r"tensor encoder/layers_0/mlp/wo/kernel cannot be read"):
        read(folder)


def _edit(folder: Path, change: Any) -> None:
    state = msgpack.unpackb((folder / "checkpoint").read_bytes(), raw=False, strict_map_key=False)
    change(state["optimizer"]["target"])
    (folder / "checkpoint").write_bytes(msgpack.packb(state, use_bin_type=True))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t["encoder"].pop("encoder_norm"), "lacks tensor encoder/encoder_norm/scale"),
        (lambda t: t["encoder"].pop("relpos_bias"), "lacks tensor encoder/relpos_bias/rel_embedding"),
        (lambda t: t["decoder"].update(extra=pack_array(np.ones(3, F32))), "has tensor decoder/extra"),
        (
            lambda t: t["decoder"]["decoder_norm"].update(scale=pack_array(np.ones(21, F32))),
            "decoder/decoder_norm/scale has shape [21], expected [22]",
        ),
        (lambda t: t["decoder"].update(decoder_norm="gone"), "tensor decoder/decoder_norm is neither"),
        (
            lambda t: t["token_embedder"]["embedding"]["kvstore"].update(path="../.."),
            "does not say which zarr folder",
        ),
        (lambda t: t["encoder"].update(encoder={"layers": pack_array(np.ones(3, F32))}), "scanned layers"),
    ],
    ids=["norm", "bias", "extra", "misshapen", "text", "path", "scanned"],
)
def test_wrong_tensor_is_named(folder: Path, change: Any, expected: str) -> None:
    _edit(folder, change)
    with pytest.raises(InvalidModelError) as caught:
        opened(folder)
    assert expected in caught.value.message


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01", b"\x01", b"\x81\xa1a" * 3000, b"\x80"])
def test_damaged_state_file_is_refused(folder: Path, data: bytes) -> None:
    (folder / "checkpoint").write_bytes(data)
    with pytest.raises(InvalidModelError):
        opened(folder)


def test_array_in_pieces() -> None:
    pieces = {
        "__msgpack_chunked_array__": True,
        "shape": {"0": 2, "1": 3},
        "chunks": {"0": pack_array(np.arange(4, dtype=F32)), "1": pack_array(np.arange(4, 6, dtype=F32))},
    }
    state = unpack(msgpack.packb({"a": {"b": pieces}}, use_bin_type=True))
    np.testing.assert_array_equal(flatten(state)["a/b"], np.arange(6, dtype=F32).reshape(2, 3))


def test_packed_array_that_lies() -> None:
    data = msgpack.packb([[2, 3], "float32", b"\0" * 8], use_bin_type=True)
    with pytest.raises(InvalidModelError):
        Packed(data).array()


@pytest.mark.shared
def test_real_checkpoint_has_every_tensor() -> None:
    folder = shared("fixtures/t5x_tiny/checkpoint_3")
    reader = opened(folder, relative_max_distance=8)
    config = reader.config
    assert (config.d_model, config.d_kv, config.num_heads, config.relative_buckets) == (4, 2, 2, 4)
    assert (config.vocab_size, config.padded_vocab_size, config.d_ff, config.gated) == (32100, 32128, 8, True)
    tensors = dict(reader.tensors(F32))
    chunks = [
        gzip.decompress((folder / "target.token_embedder.embedding" / f"{i}.0").read_bytes())
        for i in range(8)
    ]
    embedding = np.frombuffer(b"".join(chunks), F32).reshape(-1, 4)[:32128]
    np.testing.assert_array_equal(tensors["embedding"], embedding)
    raw = gzip.decompress(
        (folder / "target.decoder.layers_1.encoder_decoder_attention.out.kernel/0.0").read_bytes()
    )
    expected = np.frombuffer(raw, F32).reshape(4, 4)
    np.testing.assert_array_equal(tensors["decoder.layers.1.cross_attention.output"], expected)
    state = unpack((folder / "checkpoint").read_bytes())
    bias = flatten(state["optimizer"]["target"])["encoder/relpos_bias/rel_embedding"].array()
    np.testing.assert_array_equal(tensors["encoder.relative_bias"], bias.T)


class _Bucket(http.server.BaseHTTPRequestHandler):
    """The part of Google Cloud Storage's JSON API that reading needs, over a folder."""

    root: Path

    def do_GET(self) -> None:
        parts = urlsplit(self.path).path.split("/o/")
        file = self.root / unquote(parts[1]) if len(parts) == 2 and "/b/models" in parts[0] else None
        found = file is not None and file.is_file() and ".." not in file.parts
        data = file.read_bytes() if file is not None and found else b"{}"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-goog-generation", "1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def bucket(folder: Path) -> Iterator[str]:
    handler = type("Handler", (_Bucket,), {"root": folder.parent.parent})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_bucket_reads_through_tensorstores_gcs_driver(bucket: str, tmp_path: Path) -> None:
    """In a process of its own: tensorstore reads the endpoint's address once, when it starts."""
    environment = {
        **os.environ,
        "TENSORSTORE_GCS_HTTP_URL": bucket,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "GCE_METADATA_ROOT": "127.0.0.1:9",
        "CHORUS_CACHE_DIR": str(tmp_path / "cache"),
    }
    script = "from chorus_server.checkpoints_cli import models; models()"
    command = [sys.executable, "-c", script, "fingerprint", "gs://models/t5/checkpoint_1000", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    local = opened(OWN)
    from chorus_server.model.checkpoints.verify import find_fingerprint

    assert json.loads(done.stdout)["fingerprint"] == find_fingerprint(local)
    command[4] = "gs://models/t5"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 1
    assert "is not a T5X checkpoint" in done.stderr
