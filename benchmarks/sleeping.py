"""Servers whose engine's step is a sleep, so that a machine with few cores can run several: each answers four
rows in `SLEEPING_STEP_MS` and hardly uses the processor. Everything else is real. For
`benchmarks/replicas.py`.

    python benchmarks/sleeping.py serve                        is `chorus serve`
    serve run benchmarks.sleeping:application                  is the Ray Serve application

Each process writes how many queries it has sent to the database, below `SLEEPING_QUERIES`.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from benchmarks.batches import Device
from chorus_server import app
from chorus_server.cluster import ray_serve
from chorus_server.engine.fake_executor import FakeExecutor
from chorus_server.engine.host_prompts import HostPromptTier

_TELL_SECONDS = 0.1


def compile_executor(settings: Any, loaded: Any, *_: Any) -> tuple[Any, ...]:
    """In place of `app.compile_executor`."""
    host, device = HostPromptTier(1 << 24), Device(float(os.environ["SLEEPING_STEP_MS"]) / 1000)
    size, ladder = loaded.vocabulary.size, app.ladder_of(settings)
    executor = FakeExecutor(
        host, ladder=ladder, vocab_size=size, padded_vocab_size=size + 4, prompt_row_capacity=512
    )

    def dispatched(plan: object) -> None:
        executor.plans.clear()  # it keeps them, for tests
        device.dispatched(plan)

    executor.on_dispatch, executor.on_collect = dispatched, device.collected
    return executor, host, settings, None, app.Compiled(0, 0, 0.0)


def install() -> None:
    """In this process, from now on."""
    app.compile_executor = compile_executor  # type: ignore[assignment]
    sent, folder, name = [0], Path(os.environ["SLEEPING_QUERIES"]), str(os.getpid())

    def count(*_: object) -> None:
        sent[0] += 1

    def tell() -> None:
        while True:
            (folder / f"{name}.new").write_text(str(sent[0]))
            (folder / f"{name}.new").replace(folder / name)
            time.sleep(_TELL_SECONDS)

    event.listen(Engine, "before_cursor_execute", count)
    threading.Thread(target=tell, daemon=True).start()


class Sleeping(ray_serve.RayReplica):
    async def __serve_build_asgi_app__(self) -> Any:
        install()
        return await super().__serve_build_asgi_app__()


def application(args: dict[str, str]) -> Any:
    ray_serve.RayReplica = Sleeping  # type: ignore[misc]
    return ray_serve.application(args)


if __name__ == "__main__":
    from chorus.cli import main

    install()
    main()
