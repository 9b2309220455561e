"""`gs://` folders through tensorstore's own client, against a local server of the few calls it makes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.places import FIXTURES

FOLDER = FIXTURES / "checkpoints" / "t5x_own" / "checkpoint_1000"


class _Bucket(BaseHTTPRequestHandler):
    """`GET /storage/v1/b/released/o/OBJECT`: the fixture's files under `t5/`, 404 for anything else."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        name = path.removeprefix("/storage/v1/b/released/o/t5/")
        self.asked.append(path)
        file = FOLDER / name
        found = name != path and file.is_file()
        body = file.read_bytes() if found else b"{}"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-goog-generation", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def bucket() -> Iterator[tuple[str, list[str]]]:
    """Its address, and the paths that it was asked for."""
    asked: list[str] = []
    handler = type("Handler", (_Bucket,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def fingerprint(source: str, address: str, home: Path) -> subprocess.CompletedProcess[str]:
    """`chorus models fingerprint`, in a process of its own: tensorstore reads its environment once."""
    environment = {
        **os.environ,
        "TENSORSTORE_GCS_HTTP_URL": f"http://{address}",
        "GCE_METADATA_ROOT": address,  # answers 404: no credentials are to be had
        "HOME": str(home),
    }
    environment.pop("GOOGLE_APPLICATION_CREDENTIALS", None)
    command = [Path(sys.executable).parent / "chorus", "models", "fingerprint", source]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)


def test_a_bucket_reads_as_the_folder_it_was_copied_from(
    bucket: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = bucket
    remote = fingerprint("gs://released/t5", address, tmp_path)
    assert remote.returncode == 0, remote.stderr
    assert remote.stdout == fingerprint(str(FOLDER), address, tmp_path).stdout
    assert any(path.endswith("/target.token_embedder.embedding/0.0") for path in asked)


def test_what_is_not_in_the_bucket_is_one_sentence(bucket: tuple[str, list[str]], tmp_path: Path) -> None:
    address, _ = bucket
    remote = fingerprint("gs://released/absent", address, tmp_path)
    assert remote.returncode == 1 and remote.stdout == ""
    (sentence,) = [line for line in remote.stderr.splitlines() if line.startswith("Error: ")]
    assert "absent/ is not a T5X checkpoint" in sentence
