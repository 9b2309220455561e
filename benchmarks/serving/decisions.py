"""400 questions in one request, beside the rate of the engine that answers them.

    python benchmarks/serving/decisions.py             the base that ships and a pack of three of its tasks
    python benchmarks/serving/decisions.py --rounds 5

One process: the server on a socket, its engine, and a client that reads bytes. The engine requests that the
first HTTP request makes are kept and handed to the engine directly, in turns with HTTP requests: both do the
same work. The goal is that a request reaches 95 % of the engine's rate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from machine import machine, versions

from chorus_server.app import bring_up, build_app, close_app
from chorus_server.connections.listener import BoundedServer, uvicorn_config
from chorus_server.connections.registry import ConnectionLimits
from chorus_server.engine.requests import Request, ScoreRequest
from chorus_server.engine.thread.engine import Engine
from chorus_server.errors import ChorusError
from chorus_server.process import listen
from chorus_server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
QUESTIONS = 400
GOAL = 0.95
TASKS = {
    "sentiment": ["negative", "positive"],
    "subjectivity": ["subjective", "objective"],
    "question": ["description", "entity", "abbreviation", "person", "place", "number"],
}
STATE = "it 's a charming and often affecting journey , and nobody who sees it will want his evening back ."


def body() -> bytes:
    """A System One request whose questions go to three tasks in turns."""
    labels = list(TASKS.values())
    questions = {
        f"q{number}": {
            "type": "choice",
            "instructions": f"What is it, asked for the time {number}?",
            "criteria": dict.fromkeys(labels[number % len(labels)]),
        }
        for number in range(QUESTIONS)
    }
    return json.dumps({"model": "everything", "state": STATE, "questions": questions}).encode()


def pack() -> dict[str, Any]:
    names = list(TASKS)
    return {"questions": {f"q{n}": {"task": names[n % len(names)]} for n in range(QUESTIONS)}}


def post(line: HTTPConnection, path: str, content: bytes) -> bytes:
    line.request("POST", path, content, {"Content-Type": "application/json"})
    answer = line.getresponse()
    said = answer.read()
    if answer.status not in (200, 201):
        raise SystemExit(f"{path} answered {answer.status}: {said[:500]!r}")
    return said


def direct(engine: Engine, requests: Sequence[ScoreRequest], run: int) -> float:
    """Seconds until the engine has answered all, handed in at once."""
    again: list[Request] = [
        replace(request, origin=replace(request.origin, request_id=f"direct.{run}.{number}", call=""))
        for number, request in enumerate(requests)
    ]

    async def answered() -> None:
        for handle in engine.submit_all(again):
            if isinstance(handle, ChorusError):
                raise handle
            await handle.result()

    started = time.perf_counter()
    asyncio.run(answered())
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=ROOT / ".chorus" / "benchmark_cache")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(
            data_dir=Path(name),
            compile_cache_dir=arguments.cache,
            access_log=False,
            tuning_enabled=False,
        )
        app = build_app(settings)
        bring_up(app, lambda line: sys.stderr.write(f"{line}\n"), lambda error: None)
        listener = listen("127.0.0.1", 0)
        server = BoundedServer(uvicorn_config(app.api), ConnectionLimits(), app.entrance.look)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        try:
            figures = measured(app.services.ready().engine, listener.getsockname()[1], arguments.rounds)
        finally:
            server.should_exit = True
            thread.join(60)
            close_app(app)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    every = machine()
    content = {
        "what": "decisions",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": every,
        "versions": versions(Path(sys.executable)),
        "model": "embedded",
        "goal": GOAL,
        **figures,
    }
    target = arguments.out or RESULTS / f"{content['date']}-{every['name']}-decisions.json"
    target.write_text(json.dumps(content, indent=1) + "\n")
    sys.stdout.write(f"kept in {target}\n")


def measured(engine: Engine, port: int, rounds: int) -> dict[str, Any]:
    line = HTTPConnection("127.0.0.1", port, timeout=300)
    post(line, "/v1/packs/everything/versions", json.dumps(pack()).encode())
    kept: list[ScoreRequest] = []
    submit_all = engine.submit_all

    def noted(requests: Sequence[Request]) -> Any:
        kept.extend(request for request in requests if isinstance(request, ScoreRequest))
        return submit_all(requests)

    content = body()
    engine.submit_all = noted  # type: ignore[method-assign]
    first = post(line, "/v1/systemone", content)
    engine.submit_all = submit_all  # type: ignore[method-assign]
    if len(kept) != QUESTIONS:
        raise SystemExit(f"the request made {len(kept)} engine requests")
    free = [replace(request, fixed_shape=False) for request in kept]
    http, engines, unfixed = [], [], []
    direct(engine, kept, 0)
    for run in range(1, rounds + 1):
        started = time.perf_counter()
        said = post(line, "/v1/systemone", content)
        http.append(time.perf_counter() - started)
        if said != first:
            raise SystemExit("the same request was answered differently")
        engines.append(direct(engine, kept, 2 * run))
        unfixed.append(direct(engine, free, 2 * run + 1))
    each = {"http": http, "engine": engines, "engine_any_shape": unfixed}
    rates = {name: round(QUESTIONS / statistics.median(seconds), 1) for name, seconds in each.items()}
    return {
        "questions": QUESTIONS,
        "rounds": rounds,
        "questions_a_second": rates,
        "http_of_engine": round(rates["http"] / rates["engine"], 4),
        "http_of_engine_any_shape": round(rates["http"] / rates["engine_any_shape"], 4),
        "seconds": {name: [round(each_one, 4) for each_one in seconds] for name, seconds in each.items()},
        "input_tokens": sum(sum(len(p) if isinstance(p, tuple) else p.length for p in r.input) for r in kept),
    }


if __name__ == "__main__":
    main()
