"""A real server for tests: sockets, store, vocabulary and engine; only the device is in memory."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import sentencepiece

from chorus_server.api.http.disconnect import settle
from chorus_server.api.library import resolve
from chorus_server.api.services import BaseModelInfo
from chorus_server.app import build_app, close_app, make_serving
from chorus_server.changes import reader
from chorus_server.changes.memory import Memory
from chorus_server.connections.listener import BoundedServer, uvicorn_config
from chorus_server.connections.registry import ConnectionLimits
from chorus_server.engine.config import EngineConfig
from chorus_server.engine.fake_executor import TINY_LADDER, FakeExecutor
from chorus_server.engine.host_prompts import HostPromptTier
from chorus_server.engine.ladder import DEFAULT_PROMPT_ROWS
from chorus_server.engine.plans import Ladder, StepPlan
from chorus_server.errors import EngineDeadError
from chorus_server.jobs.feeds import FeedLimits, Pause
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.process import listen
from chorus_server.settings import Settings
from chorus_server.tenancy import callers, leasing
from chorus_server.tenancy.keys import KeyRing
from prompts_store.artifacts import write_artifact

WIDTH = 6
FINGERPRINT = "f" * 64
STORE_SECONDS = (
    (callers, "ANSWER_SECONDS"),
    (leasing, "LEASE_PATIENCE_SECONDS"),
    (reader, "READ_SECONDS"),
    (resolve, "ASK_SECONDS"),
)
"""Where it is said how long the store may take to answer, which a busy machine may need to come to it."""

_WORDS = """positive negative entailment not_entailment yes no good bad great film movie review is this the a
an of and to in it was for on with as at by from that hypothesis premise rain falls sky warm summer sport
world
business science gripping funny moving waste two hours surprisingly translate English German morning"""


def train_vocabulary(folder: Path) -> Path:
    """A small SentencePiece model with T5's special ids."""
    corpus = folder / "corpus.txt"
    words = _WORDS.split()
    lines = [" ".join(words[(i * 7 + j * j) % len(words)] for j in range(12)) for i in range(300)]
    corpus.write_text("\n".join([*lines, "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJ 0123456789 .,:;!?'-_{}"]))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "spiece"),
        vocab_size=200,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        character_coverage=1.0,
        minloglevel=2,
    )
    return folder / "spiece.model"


class ApiServer:
    """One server on a free port of this machine, in a thread of its own.

    Args:
        vocabulary: shared by tests; reading it is safe.
        on_dispatch: called on the engine's thread before each step; raise to kill the engine, block to hold
        it.
        pause: awaited between polls of a followed job.
        feed_limits: how many may follow jobs; None is the server's own.
        follows: whether it reads the change feed.
    """

    def __init__(
        self,
        folder: Path,
        vocabulary: Vocabulary,
        *,
        keys: KeyRing | None = None,
        ladder: Ladder = TINY_LADDER,
        on_dispatch: Callable[[StepPlan], None] | None = None,
        on_death: Callable[[EngineDeadError], None] | None = None,
        pause: Pause = asyncio.sleep,
        feed_limits: FeedLimits | None = None,
        config: dict[str, Any] | None = None,
        follows: bool = True,
        **settings: Any,
    ) -> None:
        self.follows = follows
        self.settings = Settings(model="tiny", data_dir=folder, access_log=False, **settings)
        self.table = np.random.default_rng(0).normal(size=(vocabulary.size, WIDTH)).astype(np.float32)
        self._app = build_app(self.settings)
        self.services, self.entrance = self._app.services, self._app.entrance
        self.store, self.access = self.services.library.store, self.entrance._access
        if keys is not None:
            self.services.callers.ring = keys
            for principal in keys.principals:
                self.store.ensure_tenant(principal.tenant)
        self.services.feeds._pause = pause
        self.services.feeds.limits = feed_limits or self.services.feeds.limits
        host = HostPromptTier(1 << 20)
        self.executor = executor = FakeExecutor(
            host,
            ladder=ladder,
            vocab_size=vocabulary.size,
            padded_vocab_size=vocabulary.size + 4,
            on_dispatch=on_dispatch,
        )
        checked = EngineConfig(check_integrity=True, **(config or {}))
        serving = make_serving(
            self._app, executor, host, vocabulary, self._base(vocabulary), checked, on_death
        )
        self.services.serving, self.engine, self.app = serving, serving.engine, self._app.api
        self._listener = listen("127.0.0.1", 0)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        # No connection ends because a busy machine is slow: those tests are in server/connections.
        self.server = BoundedServer(
            uvicorn_config(self.app), ConnectionLimits(), self.entrance.look, clock=lambda: 0.0
        )
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.http = httpx2.Client(base_url=self.url, timeout=300)

    def _base(self, vocabulary: Vocabulary) -> BaseModelInfo:
        return BaseModelInfo(
            name="tiny",
            fingerprint=FINGERPRINT,
            vocabulary_digest=vocabulary.digest,
            config={"d_model": WIDTH},
            parameters=1,
            width=WIDTH,
            compute_dtype="float32",
            matrix_dtype="float32",
            system_fingerprint="fp_0123456789abcdef",
            layout="unrolled",
            prompt_rows=self.settings.prompt_rows or DEFAULT_PROMPT_ROWS,
            embeddings=lambda: self.table,
        )

    async def _serve(self) -> None:
        self.loop = self.services.loop = asyncio.get_running_loop()
        if self.follows:
            await self.services.changes.read()
        tasks = [asyncio.create_task(each) for each in self.background()]
        try:
            await self.server.serve(sockets=[self._listener])
        finally:
            await settle(*tasks)

    def background(self) -> list[Coroutine[Any, Any, None]]:
        """Of what a process runs beside serving, what tests rely on."""
        return [self.services.changes.follow()] if self.follows else []

    def __enter__(self) -> ApiServer:
        self.engine.start()
        self.services.lifecycle.ready()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(300)
        close_app(self._app)
        assert not self.thread.is_alive()

    def push(self, task: str, rows: int = 3, seed: int = 0, **metadata: Any) -> dict[str, Any]:
        """Upload a random prompt; the answer's JSON."""
        query = {name: value for name, value in metadata.items() if name != "labels"}
        answer = self.http.post(
            f"/v1/tasks/{task}/versions",
            content=artifact(rows, seed),
            headers={"content-type": "application/octet-stream"},
            params=query | ({"label": metadata["labels"]} if "labels" in metadata else {}),
        )
        assert answer.status_code in (200, 201), answer.text
        result: dict[str, Any] = answer.json()
        return result

    def post(self, path: str, body: Any) -> httpx2.Response:
        """Post JSON."""
        return self.http.post(path, json=body)


def stop_time(api: ApiServer) -> None:
    """What is remembered stays as fresh as it is."""
    library, who = api.services.library, api.services.callers
    memories: list[Memory[Any, Any]] = [library._versions, library._ensembles, *who._memories()]
    for memory in memories:
        memory._clock = lambda: 0.0


class Gate:
    """Holds the engine's thread before a step while it is closed."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()

    def __call__(self, plan: StepPlan) -> None:
        if not self.open.is_set():
            self.waiting.set()
            assert self.open.wait(300)

    def close(self) -> None:
        """Hold the next step; `waiting` is set once it is held."""
        self.waiting.clear()
        self.open.clear()


@contextmanager
def gated_server(folder: Path, vocabulary: Vocabulary, gate: Gate, **arguments: Any) -> Iterator[ApiServer]:
    """A server whose engine stands still while the gate is closed; it is opened at the end."""
    with ApiServer(folder, vocabulary, on_dispatch=gate, **arguments) as server:
        try:
            yield server
        finally:
            gate.open.set()


def send(
    api: ApiServer, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> socket.socket:
    """Post JSON on a connection of its own; the answer is the caller's to read."""
    client = socket.create_connection(("127.0.0.1", api.port), timeout=300)
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}"
    ) + "".join(f"\r\n{name}: {value}" for name, value in (headers or {}).items())
    client.sendall(head.encode() + b"\r\n\r\n" + content)
    return client


def counted(api: ApiServer, name: str, **labels: str) -> float:
    """A metric's value; 0 where nothing was counted."""
    return api.services.metrics.registry.get_sample_value(name, labels) or 0.0


def prompt(rows: int = 3, seed: int = 0, width: int = WIDTH) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Random prompt values."""
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def artifact(rows: int = 3, seed: int = 0, width: int = WIDTH) -> bytes:
    """A random prompt as safetensors."""
    return write_artifact(prompt(rows, seed, width), "safetensors")


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    """The error of an answer, after checking its shape: our own, OpenAI's or TypeSafe's."""
    body = answer.json()
    identity = answer.headers["x-request-id"]
    if "x-typesafe-request-id" in answer.headers:
        return _system_one_error(answer, identity)
    if set(body["error"]) == {"message", "type", "param", "code"}:
        said = body["error"]
        return {name: said[name] for name in ("code", "message")} | {
            "field": said["param"],
            "request_id": identity,
        }
    assert set(body) == {"error"}, body
    quota = {"quota"} if body["error"]["code"] == "limit_exceeded" else set()
    assert set(body["error"]) == {"code", "message", "field", "request_id"} | quota
    assert body["error"]["request_id"] == answer.headers["x-request-id"]
    error: dict[str, Any] = body["error"]
    return error


def eventually(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Wait for what another thread does and gives no event of; fails when it has not come after `seconds`.

    The longer it takes, the less often the condition is asked: many ask a server.
    """
    began, pause = time.monotonic(), threading.Event()
    while not condition():
        waited = time.monotonic() - began
        assert waited < seconds, "it never came"
        pause.wait(min(max(waited / 8, 0.001), 0.1))


def _system_one_error(answer: httpx2.Response, identity: str) -> dict[str, Any]:
    assert answer.headers["x-typesafe-request-id"] == identity
    (detail,) = answer.json().values()
    if answer.status_code != 422:
        assert set(detail) == {"error_type", "message", "x_code"}
        return {"code": detail["x_code"], "message": detail["message"], "field": None, "request_id": identity}
    (problem,) = detail
    assert set(problem) == {"loc", "msg", "type"} and problem["loc"][0] == "body"
    field = ".".join(map(str, problem["loc"][1:])) or "body"
    return {"code": problem["type"], "message": problem["msg"], "field": field, "request_id": identity}
