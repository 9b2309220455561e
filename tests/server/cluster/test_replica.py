"""What a replica refuses before it loads a model. The rest is in test_ray_serve.py."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from chorus_server.app import close_app
from chorus_server.changes.reader import ChangeReader
from chorus_server.cluster import replica
from chorus_server.cluster.ray_serve import application
from chorus_server.cluster.replica import Replica, build_app_behind, listen_after
from chorus_server.errors import EngineDeadError, InvalidInputError
from chorus_server.settings import Settings
from prompts_store.errors import StoreError
from tests.end_to_end.served import free_port


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3"])
def test_a_proxy_that_others_reach_needs_a_key(tmp_path: Path, host: str) -> None:
    settings = Settings(model="embedded", data_dir=tmp_path)
    with pytest.raises(InvalidInputError, match=f"{host} without a key") as refused:
        Replica(settings, host, print)
    assert refused.value.field == "http_host"
    assert "CHORUS_OPERATOR_KEY_FILE" in refused.value.message and "HAProxy" in refused.value.message


@pytest.mark.parametrize("given", [{}, {"operator_key_file": "key"}, {"insecure_bind": True}])
def test_with_a_key_or_on_loopback_it_may_listen(tmp_path: Path, given: dict[str, Any]) -> None:
    (tmp_path / "key").write_text("an-operator-of-tests-0123456789")
    if "operator_key_file" in given:
        given = {"operator_key_file": tmp_path / "key"}
    host = "0.0.0.0" if given else "127.0.0.1"
    settings = Settings(model="embedded", data_dir=tmp_path, http_host=host, **given)
    close_app(build_app_behind(settings, host, lambda: 0))


def test_only_a_dead_engine_fails_the_check(tmp_path: Path) -> None:
    replica = Replica(Settings(model="embedded", data_dir=tmp_path), "127.0.0.1", print)
    lifecycle = replica._app.services.lifecycle
    for go in (lambda: None, lambda: lifecycle.compiling(1, 9), lifecycle.ready, lifecycle.draining):
        go()
        replica.check()
    replica._on_death(EngineDeadError("a step took too long"))
    with pytest.raises(EngineDeadError):
        replica.check()
    assert replica.load() == {}
    close_app(replica._app)


def test_a_start_that_fails_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: Any) -> None:
        raise StoreError("away")

    closed: list[Any] = []
    listened: list[socket.socket] = []

    def listen(*where: Any) -> socket.socket:
        listened.append(listen_after(*where))
        return listened[-1]

    monkeypatch.setattr(replica, "close_app", lambda app: closed.append(app) or close_app(app))
    monkeypatch.setattr(replica, "listen_after", listen)
    monkeypatch.setattr(ChangeReader, "read", away)

    async def start() -> None:
        settings = Settings(model="embedded", data_dir=tmp_path, http_port=free_port())
        made = Replica(settings, "127.0.0.1", print)
        with pytest.raises(StoreError):
            await made.start()
        assert [each.fileno() for each in listened] == [-1], "nobody listens there any more"
        assert closed == [made._app]

    asyncio.run(start())


def test_each_replica_takes_the_next_free_port() -> None:
    port = free_port()
    with listen_after("127.0.0.1", port) as first, listen_after("127.0.0.1", port) as second:
        taken = [each.getsockname()[1] for each in (first, second)]
        assert port < taken[0] < taken[1]
    with listen_after("127.0.0.1", 0) as anywhere:
        assert anywhere.getsockname()[1] > 0
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(InvalidInputError) as refused:
        listen_after("192.0.2.1", other.getsockname()[1])
    assert refused.value.field == "http_port"


def test_the_application_takes_no_arguments() -> None:
    with pytest.raises(InvalidInputError, match="takes no arguments, got model"):
        application({"model": "x"})
