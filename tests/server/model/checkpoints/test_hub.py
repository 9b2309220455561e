"""Hub ids: the real client of huggingface_hub against a small hub on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from chorus_server.model.checkpoints.hub import is_hub_id
from chorus_server.model.checkpoints.verify import find_fingerprint
from tests.server.model.checkpoints.checkpoint_samples import CHECKPOINTS, PARITY, opened, train_vocabulary
from tether import tethered

COMMIT = "a" * 40


class _Hub(http.server.BaseHTTPRequestHandler):
    """What downloading a model asks of a hub, over a folder of `owner/name` folders."""

    root: Path
    asked: list[str]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.asked.append(f"{self.command} {path}")
        parts = path.split("/")
        if parts[:2] == ["api", "models"]:
            self._listing("/".join(parts[2:4]), parts[4:])
        elif len(parts) > 4 and parts[2] == "resolve" and (self.root / parts[0] / parts[1]).is_dir():
            self._file(self.root / parts[0] / parts[1] / "/".join(parts[4:]))
        else:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _listing(self, repo: str, rest: list[str]) -> None:
        folder = self.root / repo
        if not folder.is_dir():
            self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        names = [str(path.relative_to(folder)) for path in files]
        if rest[:1] == ["tree"]:
            document: Any = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
                for name, path in zip(names, files, strict=True)
            ]
        else:
            document = {
                "id": repo,
                "modelId": repo,
                "sha": COMMIT,
                "siblings": [{"rfilename": n} for n in names],
            }
        self._answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        headers = {
            "ETag": f'"{_etag(path)}"',
            "X-Repo-Commit": COMMIT,
            "Content-Type": "application/octet-stream",
        }
        self._answer(200, path.read_bytes(), headers)

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


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
    """A hub with an address, a list of what it was asked, and commands run against it."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.asked: list[str] = []
        handler = type("Handler", (_Hub,), {"root": root, "asked": self.asked})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.environment = {
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "HF_HOME": str(cache / "hf"),
            "CHORUS_CACHE_DIR": str(cache),
        }

        self._commands: dict[bool, subprocess.Popen[str]] = {}

    def stop(self) -> None:
        for process in self._commands.values():
            process.communicate()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

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
    root = tmp_path_factory.mktemp("hub")
    (root / "google" / "t5").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(PARITY / "t5_1_1" / name, root / "google" / "t5" / name)
    (root / "google" / "t5" / "tf_model.h5").write_bytes(b"not wanted")
    shutil.copytree(CHECKPOINTS / "sharded_f32", root / "google" / "only-bin", ignore=lambda *_: ["expected"])
    (root / "google" / "added").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(PARITY / "t5_1_1" / name, root / "google" / "added" / name)
    train_vocabulary(root / "google" / "added" / "spiece.model")
    (root / "google" / "added" / "added_tokens.json").write_text('{"<sep>": 96}')
    (root / "google" / "nothing").mkdir()
    (root / "google" / "nothing" / "tf_model.h5").write_bytes(b"not wanted")
    running = Hub(root, tmp_path_factory.mktemp("cache"))
    yield running
    running.stop()


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
