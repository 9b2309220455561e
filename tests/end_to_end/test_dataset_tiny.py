"""Files of a bucket answered as a server answers them over HTTP: by an actor that is killed, then by Ray
Data, which goes on; and in the control, answered anew where the source was written again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chorus_server.cluster.files import QUESTION
from prompts_store.blobs import BlobAddress
from prompts_store.blobs.bucket import Bucket
from prompts_store.store import PromptStore
from prompts_store.testing import example_prompt
from tests.end_to_end.served import SAME_NUMBERS, TINY, Served
from tests.places import python_module
from tests.s3_server import S3Server
from tether import tethered

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROWS = (100, 100, 600, 600, 600)
"""Of each file. The process is killed when two are answered and the third nearly is."""
LABELS = ("no", "yes")
TEXTS = ("the film was good", "it was a bad cat", "we saw the sun", "they ran home then")
TOO_LONG, NULL = 7, 11
"""Rows of every file that cannot be asked."""
BROKEN = "broken.parquet"
FEW_PROCESSES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_prestart_worker_first_driver": "0"}


def rows_of(file: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"n": n, "begin": f"{TEXTS[n % 4]} {chr(97 + n % 26)}", "end": chr(97 + (n + file) % 26)}
        for n in range(ROWS[file])
    ]
    rows[TOO_LONG]["begin"] = "cat " * 60
    rows[NULL]["end"] = None
    return rows


def over_http(server: Served, rows: list[dict[str, Any]]) -> list[Any]:
    """What a server answers to each row: label and log probabilities, or the code of the error."""

    def ask(*asked: dict[str, Any]) -> Any:
        inputs = [{"first": row["begin"], "second": row["end"]} for row in asked]
        body = {"task": "pair@live", "inputs": inputs, "labels": LABELS}
        return server.http.post("/v1/classify", json=body).json()

    good = {
        (row["begin"], row["end"]): row for row in rows if row["n"] not in (TOO_LONG, NULL)
    }  # many are alike
    said: dict[Any, Any] = {
        words: (result["label"], rounded(result["log_probabilities"]), result["version"])
        for words, result in zip(good, ask(*good.values())["results"], strict=True)
    }
    said |= {(rows[n]["begin"], rows[n]["end"]): ask(rows[n])["error"]["code"] for n in (TOO_LONG, NULL)}
    return [said[row["begin"], row["end"]] for row in rows]


def rounded(found: dict[str, float]) -> dict[str, float]:
    """The last bits depend on who shares a batch."""
    return {label: round(value, 4) for label, value in found.items()}


@dataclass
class Place:
    """Source and target in a bucket, and the store that actors and servers share."""

    address: BlobAddress
    arguments: dict[str, Any]
    log: Path

    @property
    def bucket(self) -> Bucket:
        return self.address.bucket()

    def put(self, path: str, rows: list[dict[str, Any]], folder: Path) -> None:
        kinds = pa.schema({"n": pa.int64(), "begin": pa.string(), "end": pa.string()})
        pq.write_table(pa.Table.from_pylist(rows, kinds), folder / "rows.parquet")
        self.bucket.put_file(path, folder / "rows.parquet")

    def answered(self) -> dict[str, datetime]:
        """The files in the target."""
        entries = self.bucket.entries("out")
        return {path: at for path, at in entries if path.endswith(".parquet")}

    def rows(self, path: str) -> list[dict[str, Any]]:
        content = self.bucket.get(path)
        assert content is not None
        found: list[dict[str, Any]] = pq.read_table(pa.BufferReader(content)).to_pylist()
        return found

    @contextmanager
    def child(self, ray_path: str, *how: str) -> Iterator[subprocess.Popen[str]]:
        """A run in a session of its own, of which everything is killed at the end: Ray's processes too."""
        with self.log.open("w") as log:
            child = subprocess.Popen(
                tethered(
                    [*python_module("tests.end_to_end.dataset_child"), json.dumps(self.arguments), *how]
                ),
                env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": ray_path, **FEW_PROCESSES},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        with child:
            try:
                yield child
            finally:
                for process in Path("/proc").glob("[0-9]*"):
                    with suppress(ProcessLookupError):
                        if os.getsid(int(process.name)) == child.pid:
                            os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture
def place(s3_server: S3Server, tiny_model: Path, compile_cache: Path, tmp_path: Path) -> Place:
    address = s3_server.address()
    settings = {
        "model": str(tiny_model), "data_dir": str(tmp_path / "data"), "compile_cache_dir": str(compile_cache),
        "blob_credentials_file": str(address.credentials_file), **TINY, **SAME_NUMBERS,
    }  # fmt: skip
    arguments = {
        "source": s3_server.url(address).replace("?", "/in?"), "endpoint": "/v1/classify",
        "target": s3_server.url(address).replace("?", "/out?"),
        "body": {"task": "pair@live", "labels": LABELS}, "input": {"first": "begin", "second": "end"},
        "settings": settings,
    }  # fmt: skip
    return Place(address, arguments, tmp_path / "log")


def publish(server: Served) -> None:
    """A task whose inputs have two fields."""
    base = server.http.get("/v1/model").json()
    store = PromptStore.open(server.data_dir)
    values, manifest = example_prompt(1, width=base["config"]["d_model"], template="{first} and {second}")
    store.publish("default", "pair", values, manifest, created_by="test")
    store.close()


@pytest.mark.timeout(900)
def test_a_killed_dataset_answers_no_finished_file_again(place: Place, ray_path: str, tmp_path: Path) -> None:
    files = {f"week-{n // 2}/part-{n}.parquet": rows_of(n) for n in range(len(ROWS))}
    options = {name: value for name, value in place.arguments["settings"].items() if name != "data_dir"}
    with Served(tmp_path / "data", **options) as server:
        server.wait_ready()
        publish(server)
        expected = {f"out/{path}": over_http(server, rows) for path, rows in files.items()}
        other = rows_of(0)[::-1]
        expected_other = over_http(server, rows_of(0))[::-1]
    for path, rows in files.items():
        place.put(f"in/{path}", rows, tmp_path)
    place.bucket.put(f"in/{BROKEN}", b"no Parquet")

    with place.child(ray_path, "actor") as child:
        pause = threading.Event()
        while len(place.answered()) < 2:
            assert child.poll() is None
            pause.wait(0.02)
    before = place.answered()
    assert len(before) == 2
    control = min(before)
    path = control.removeprefix("out/")
    files[path], expected[control] = other, expected_other
    place.put(f"in/{path}", other, tmp_path)

    with place.child(ray_path) as child:
        said, _ = child.communicate()
        assert child.returncode == 0, place.log.read_text()[-4000:]
    told = {f"out/{file['path']}": file for file in json.loads(said)}
    after = place.answered()

    skipped = {path for path, file in told.items() if file["skipped"]}
    assert before.keys() - {control} <= skipped
    assert len(skipped) < len(ROWS) - 1  # it was killed between
    assert all(after[path] == before[path] for path in skipped & before.keys())
    assert control not in skipped and after[control] > before[control]
    assert "Parquet" in told.pop(f"out/{BROKEN}")["error"]
    for path, file in told.items():
        assert file["error"] is None
        if not file["skipped"]:
            assert (file["rows"], file["failed"]) == (len(expected[path]), 2)

    assert after.keys() == expected.keys()
    for path, rows in files.items():
        found = place.rows(f"out/{path}")
        assert [{name: row[name] for name in ("n", "begin", "end")} for row in found] == rows
        assert [said_of(row) for row in found] == expected[f"out/{path}"]
    asked = json.loads(place.bucket.get(f"out/{QUESTION}") or b"")
    assert asked["body"]["task"] == "pair@live"


def said_of(row: dict[str, Any]) -> Any:
    """What a row says, as `over_http`."""
    if row["answer_error"] is not None:
        assert row["answer_label"] is None
        return row["answer_error"]
    return row["answer_label"], rounded(dict(row["answer_log_probabilities"])), row["answer_version"]
