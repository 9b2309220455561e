"""When the device fails, whoever waits is told, readiness is down at once, the process ends in seconds."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import httpx2
import pytest

from tests.end_to_end.served import TINY, Served

pytestmark = pytest.mark.usefixtures("compiled_quickly")
_RAISES = """
from chorus_server.engine.executor.jax_executor import JaxExecutor
def collect(self, pending):
    raise RuntimeError("the device fell off")
JaxExecutor.collect = collect
"""
_HANGS_AFTERWARDS = """
import chorus_server.process
class Stuck(chorus_server.process.EndingServer):
    async def shutdown(self, sockets=None):
        import threading
        threading.Event().wait()  # the event loop itself hangs
chorus_server.process.EndingServer = Stuck
"""
_SERVE = "from chorus_server.cli import serve; serve()"


@pytest.mark.parametrize("breakage", [_RAISES, _RAISES + _HANGS_AFTERWARDS], ids=["raises", "and hangs"])
def test_a_dead_engine_ends_the_process(
    tmp_path: Path, tiny_model: Path, compile_cache: Path, breakage: str
) -> None:
    server = Served(
        tmp_path,
        command=[sys.executable, "-c", breakage + _SERVE],
        model=tiny_model,
        compile_cache_dir=compile_cache,
        **TINY,
    )
    server.wait_ready()
    answer = server.http.post("/v1/generate", json={"task": None, "input": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_dead")
    with contextlib.suppress(httpx2.TransportError):  # a socket that has closed already is not ready either
        assert httpx2.get(f"{server.http.base_url}/readyz", timeout=300).status_code == 503
    code = server.process.wait(1200)  # how long it may take: tests/server/test_process.py
    assert code == 1
    server.stop()
    assert any("the engine died" in line for line in server.lines)
