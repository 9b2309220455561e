"""A server in a process of its own tells how far bodies raise its memory: JSON, name to bytes."""

from __future__ import annotations

import gc
import http.client
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from chorus_server.api.http import json_body
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, train_vocabulary
from tests.server.api.http.hostile_bodies import values


def bodies(size: int) -> Iterator[tuple[str, bytes]]:
    """Bodies of `size` bytes, or of what the door lets through of their kind."""
    hostile = values(size)
    kinds = ("objects", "keys", "wrong items", "escapes", "pairs", "one word", "ligatures")
    for name in kinds:
        yield name, hostile[name]
    for name, end, share in (
        ("wide", "\u0100", 1.0),
        ("wider", "\U0001f600", 0.62),
        ("too wide", "\U0001f600", 1),
    ):
        for count in (4, 256):
            text = b"a" * (int(size * share) // count - 16) + end.encode()
            yield f"{name}, {count}", b"[" + b",".join([b'"' + text + b'"'] * count) + b"]"


def memory(name: str) -> int:
    """Bytes, of `VmRSS` (now) or `VmHWM` (the most since the last `forget_peak`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) << 10


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def rise(port: int, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    gc.collect()
    forget_peak()
    before = memory("VmRSS")
    connection.request("POST", "/v1/generate", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status < 500, answer.read()
    answer.read()
    connection.close()
    return memory("VmHWM") - before


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Vocabulary.load(train_vocabulary(Path(folder)), extra_ids=4)
        with ApiServer(Path(folder) / "data", vocabulary, max_body_bytes=4 << 20) as api:
            size = api.settings.max_body_bytes - 200
            rises = {"limit": api.settings.max_body_bytes, "nothing": rise(api.port, b"")}
            begin = b'{"task":null,"truncate":true,"max_new_tokens":1,"inputs":'
            for name, value in bodies(size):
                rises[name] = rise(api.port, begin + value[:size] + b"}")
            json_body.check_counts = lambda *_: None  # the control
            rises["control"] = rise(api.port, begin + values(size)["objects"] + b"}")
    sys.stdout.write(json.dumps(rises))


if __name__ == "__main__":
    main()
