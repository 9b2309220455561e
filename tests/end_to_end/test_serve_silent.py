"""`chorus serve` where it may open 256 files and 400 connections say nothing: it goes on working."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.served import CHORUS, TINY, Served

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SILENT = 400


def test_a_server_works_beside_more_silent_connections_than_it_has_descriptors(
    tmp_path: Path, tiny_model: Path, compile_cache: Path
) -> None:
    """Health checks, the store and answers, each on a fresh connection; uvicorn as it comes is the control of
    `tests/faults/test_silent_connections.py`."""
    command = ("sh", "-c", f"ulimit -n 256 && exec '{CHORUS}' serve")
    options = {"model": tiny_model, "compile_cache_dir": compile_cache, "log_level": "info"}
    values = io.BytesIO()
    np.save(values, np.zeros((3, 26), np.float32))
    with Served(tmp_path, command=command, **options, **TINY) as server, contextlib.ExitStack() as clients:
        server.wait_ready()
        address = ("127.0.0.1", server.http.base_url.port)
        for _ in range(SILENT):
            clients.enter_context(socket.create_connection(address, timeout=300))
        server.http.headers["connection"] = "close"
        for number in range(5):
            assert server.http.get("/healthz").status_code == 200
            assert server.http.get("/readyz").status_code == 200
            uploaded = server.http.post(
                f"/v1/tasks/task-{number}/versions",
                content=values.getvalue(),
                headers={"content-type": "application/octet-stream"},
            )
            assert uploaded.status_code in (200, 201), uploaded.text
            server.post("/v1/generate", {"task": f"task-{number}", "input": "x", "max_new_tokens": 2})
        free = 256 - len(os.listdir(f"/proc/{server.process.pid}/fd"))  # noqa: PTH208
        assert free >= 24, free  # 32, less what the store has opened since it was last looked
        server.wait_for(re.compile(r"connections ended: .*?(\d+) x closed for a newer one"))
        assert not any("Traceback" in line or "asyncio" in line for line in server.lines)
        assert server.stop() == 0
