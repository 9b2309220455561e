"""Starts a server and asks all its tasks at once, then lets prompts vote.

On the base that ships with Chorus, whose prompts the server registers itself; in a checkout without one, on a
small model with random weights that is made here.

Run it through `scripts/demo.py`, which makes the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from chorus import Client, ConnectionFailedError
from server.embedded import DEMO_TENANT, embedded_folder

ROOT = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("CHORUS_DEMO_DIR", ROOT / ".chorus" / "demo"))
TEXTS = {
    "sentiment": "a warm and funny film",
    "topic": "the team won the final after a late goal",
    "question": "who wrote the first book about the city ?",
}
START_LIMIT_SECONDS = 300.0

console = Console(stderr=True, soft_wrap=True)


def main() -> int:
    arguments = _arguments()
    base = embedded_folder()
    demo = json.loads((base / "demo.json").read_text()) if base else None
    if base is None and not (HOME / "model").exists():
        console.print("chorus: making a small model with random weights")
        subprocess.run([sys.executable, ROOT / "scripts" / "make_demo.py", HOME], check=True)
    port = arguments.port or _free_port()
    server = _serve(port, embedded=base is not None)
    try:
        client = Client(f"http://127.0.0.1:{port}", retries=0)
        _wait_until_ready(client, server)
        if demo is None:
            _register(client)
        _show_batch(client, inputs_of(demo))
        _show_vote(client, demo)
        _show_next(port, next(iter(inputs_of(demo))))
        if sys.stdin.isatty() and not arguments.once:
            console.print("\nThe server keeps running: press Ctrl-C to stop it.")
            return server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait(timeout=60)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop after the answers")
    parser.add_argument(
        "--port", type=int, help="TCP port on 127.0.0.1 (default: 8000, or a free one if it is taken)"
    )
    return parser.parse_args()


def _free_port() -> int:
    for port in (8000, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free TCP port on 127.0.0.1")


def _serve(port: int, *, embedded: bool) -> subprocess.Popen[bytes]:
    chorus = Path(sys.executable).parent / "chorus"
    data = HOME / ("base-data" if embedded else "data")
    environment = {"CHORUS_ACCESS_LOG": "false", **os.environ, "CHORUS_DATA_DIR": str(data)}
    which = ["--model", "embedded", "--tenant", DEMO_TENANT] if embedded else ["--model", HOME / "model"]
    return subprocess.Popen(
        [chorus, "serve", *which, "--host", "127.0.0.1", "--port", str(port)], env=environment
    )


def inputs_of(demo: dict[str, Any] | None) -> dict[str, Any]:
    """An input for each task: a text, or a template's fields."""
    return dict(TEXTS) if demo is None else {task["task"]: task["example"] for task in demo["tasks"]}


def _wait_until_ready(client: Client, server: subprocess.Popen[bytes]) -> None:
    """Poll `/readyz`: another process has no event to wait on."""
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while not _is_ready(client):
        if server.poll() is not None:
            sys.exit("chorus: the server ended before it was ready; its messages are above.")
        if time.monotonic() > deadline:
            sys.exit(f"chorus: the server was not ready after {START_LIMIT_SECONDS:.0f} s.")
        time.sleep(0.2)


def _is_ready(client: Client) -> bool:
    try:
        return client.ready().ready
    except ConnectionFailedError:
        return False


def _register(client: Client) -> None:
    for path in sorted((HOME / "prompts").glob("*.safetensors")):
        client.tasks.push(path.stem, path)


def _show_batch(client: Client, inputs: dict[str, Any]) -> None:
    answers = client.generate(requests=[{"task": task, "input": value} for task, value in inputs.items()])
    table = Table(title=f"One batch, {len(inputs)} tasks, one frozen model", title_justify="left")
    for column in ("task", "version", "input", "answer"):
        table.add_column(column)
    for (task, value), result in zip(inputs.items(), answers.results, strict=True):
        text = value if isinstance(value, str) else " / ".join(value.values())
        table.add_row(task, str(result.version), text, json.dumps(result.text, ensure_ascii=False))
    console.print(table)


def _show_vote(client: Client, demo: dict[str, Any] | None) -> None:
    if demo is not None:
        ensemble = demo["ensembles"][0]
        text = inputs_of(demo)[ensemble["task"]]
        vote = client.ensemble(ensemble=ensemble["name"], input=text).results[0]
        members = len(ensemble["versions"])
        console.print(f"A vote of {members} members: {vote.answer!r}, agreement {vote.agreement:.2f}")
        return
    vote = client.ensemble(tasks=["sentiment", "sentiment@1"], input=TEXTS["sentiment"]).results[0]
    console.print(f"A vote of two members: {vote.answer!r}, agreement {vote.agreement:.2f}")
    console.print(
        "(The weights are random, so the answers mean nothing yet. Everything else is the real thing.)"
    )


def _show_next(port: int, task: str) -> None:
    console.print(f"""
Next:
  curl -s http://127.0.0.1:{port}/v1/generate -H 'content-type: application/json' \\
       -d '{{"task": "{task}", "input": "a joyless mess"}}'
  chorus serve --model google/flan-t5-small           a real model from the hub
  chorus tasks push my-task prompt.safetensors        your own prompt (PEFT folders and .npy too)
  open http://127.0.0.1:{port}/docs                        every route""")


if __name__ == "__main__":
    sys.exit(main())
