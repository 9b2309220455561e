"""Hub ids: the real client of huggingface_hub against a small hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chorus_server.model.checkpoints.hub import is_hub_id
from chorus_server.model.checkpoints.verify import find_fingerprint
from tests.hub_server import HubServer
from tests.server.model.checkpoints.checkpoint_samples import CHECKPOINTS, PARITY, opened, train_vocabulary
from tether import tethered

_COMMANDS = """
import json, sys
from click.testing import CliRunner
from chorus_server.checkpoints_cli import models

for line in sys.stdin:
    done = CliRunner().invoke(models, json.loads(line))
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    found = {"returncode": done.exit_code, "stdout": done.stdout, "stderr": done.stderr}
    print(json.dumps(found), flush=True)
"""
"""Answers a line of arguments with a line of what the command did; ends where an exception came out."""


class Hub:
    """A hub, and commands run against it."""

    def __init__(self, there: HubServer, cache: Path) -> None:
        self.asked = there.asked
        self.environment = {
            **os.environ,
            "HF_ENDPOINT": there.url,
            "HF_HOME": str(cache / "hf"),
            "CHORUS_CACHE_DIR": str(cache),
            # Ten seconds otherwise, for a server that is a thread of this process on a busy machine.
            "HF_HUB_ETAG_TIMEOUT": "300",
            "HF_HUB_DOWNLOAD_TIMEOUT": "300",
        }
        self._commands: dict[bool, subprocess.Popen[str]] = {}

    def stop(self) -> None:
        for process in self._commands.values():
            process.communicate()

    def chorus(self, *arguments: str, offline: bool = False) -> Any:
        """`chorus models`, in a process of its own: the client reads its environment once."""
        if offline not in self._commands:
            environment = self.environment | ({"HF_HUB_OFFLINE": "1"} if offline else {})
            self._commands[offline] = subprocess.Popen(
                tethered([sys.executable, "-c", _COMMANDS]),
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        process = self._commands[offline]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(arguments) + "\n")
        process.stdin.flush()
        return SimpleNamespace(**json.loads(process.stdout.readline()))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    there = HubServer()
    model = {name: (PARITY / "t5_1_1" / name).read_bytes() for name in ("config.json", "model.safetensors")}
    there.add("google/t5", {**model, "tf_model.h5": b"not wanted"})
    sharded = CHECKPOINTS / "sharded_f32"
    there.add(
        "google/only-bin", {path.name: path.read_bytes() for path in sharded.iterdir() if path.is_file()}
    )
    words = train_vocabulary(tmp_path_factory.mktemp("words") / "spiece.model").read_bytes()
    there.add("google/added", {**model, "spiece.model": words, "added_tokens.json": b'{"<sep>": 96}'})
    there.add("google/nothing", {"tf_model.h5": b"not wanted"})
    running = Hub(there, tmp_path_factory.mktemp("cache"))
    yield running
    running.stop()
    there.stop()


def test_download_then_offline(hub: Hub) -> None:
    done = hub.chorus("fingerprint", "google/t5", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["name"] == "google/t5"
    assert document["fingerprint"] == find_fingerprint(opened(PARITY / "t5_1_1"))
    assert "model.safetensors" in " ".join(hub.asked)
    assert "tf_model" not in " ".join(hub.asked)
    hub.asked.clear()
    again = hub.chorus("fingerprint", "google/t5", "--json", offline=True)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == document
    assert hub.asked == []


def test_torch_files_are_downloaded_to_convert_only(hub: Hub, tmp_path: Path) -> None:
    hub.asked.clear()
    done = hub.chorus("fingerprint", "google/only-bin")
    assert done.returncode == 1
    assert "chorus models convert google/only-bin" in done.stderr
    assert not any(".bin" in request for request in hub.asked)
    done = hub.chorus("convert", "google/only-bin", str(tmp_path / "m"), "--without-vocabulary", "--json")
    assert done.returncode == 0, done.stderr
    expected = find_fingerprint(opened(CHECKPOINTS / "sharded_f32" / "expected"))
    assert json.loads(done.stdout)["fingerprint"] == expected


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("google/absent", "no such model"),
        ("google/nothing", "no weights that Chorus can read"),
        ("google/added", 'added_tokens.json adds one token to spiece.model: "<sep>" (id 96)'),
    ],
)
def test_what_cannot_be_had_is_said(hub: Hub, source: str, sentence: str) -> None:
    done = hub.chorus("describe", source)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_what_reads_as_a_hub_id() -> None:
    assert is_hub_id("google/t5-small-lm-adapt")
    assert is_hub_id("google/t5@refs/pr/1")
    for other in ("t5", "/a/b", "a/b/c", "../b", "a/..", "gs://a/b", "a/b@"):
        assert not is_hub_id(other), other
