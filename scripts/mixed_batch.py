"""Starts a server on the base that ships with Chorus, asks all its tasks at once, then lets prompts vote.

Run it through `scripts/demo.py`, which creates the environment.
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
from chorus_server.embedded import embedded_folder
from tether import tethered

ROOT = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("CHORUS_DEMO_DIR", ROOT / ".chorus" / "demo"))
START_LIMIT_SECONDS = 900.0

console = Console(stderr=True, soft_wrap=True)


def main() -> int:
    arguments = _arguments()
    base = embedded_folder()
    if base is None:
        sys.exit(
            "chorus: this checkout has no base_model; check it out again, or run: chorus serve --model MODEL"
        )
    demo = json.loads((base / "demo.json").read_text())
    port = arguments.port or _free_port()
    server = _serve(port)
    try:
        client = Client(f"http://127.0.0.1:{port}", retries=0)
        _wait_until_ready(client, server)
        _show_batch(client, demo)
        _show_vote(client, demo)
        _show_next(port)
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


def _serve(port: int) -> subprocess.Popen[bytes]:
    chorus = Path(sys.executable).parent / "chorus"
    environment = {"CHORUS_ACCESS_LOG": "false", **os.environ, "CHORUS_DATA_DIR": str(HOME / "data")}
    command = [chorus, "serve", "--model", "embedded", "--host", "127.0.0.1", "--port", port]
    return subprocess.Popen(tethered(command), env=environment)


def inputs_of(demo: dict[str, Any]) -> dict[str, dict[str, str]]:
    """An input for each task: a row of its report split, in the form of its template's fields."""
    return {task["task"]: task["example"] for task in demo["tasks"]}


def _wait_until_ready(client: Client, server: subprocess.Popen[bytes]) -> None:
    """Poll `/readyz`, because another process offers no event to wait on."""
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


def _show_batch(client: Client, demo: dict[str, Any]) -> None:
    inputs = inputs_of(demo)
    answers = client.generate(requests=[{"task": task, "input": value} for task, value in inputs.items()])
    table = Table(title=f"One batch, {len(inputs)} tasks, one frozen model", title_justify="left")
    for column in ("task", "version", "input", "answer"):
        table.add_column(column)
    for (task, value), result in zip(inputs.items(), answers.results, strict=True):
        answer = json.dumps(result.text, ensure_ascii=False)
        table.add_row(task, str(result.version), " / ".join(value.values()), answer)
    console.print(table)


def _show_vote(client: Client, demo: dict[str, Any]) -> None:
    ensemble = demo["ensembles"][0]
    value = inputs_of(demo)[ensemble["task"]]
    vote = client.ensemble(ensemble=ensemble["name"], input=value).results[0]
    members = len(ensemble["versions"])
    console.print(
        f"A vote of {members} prompts of {ensemble['task']}: {vote.answer!r}, agreement {vote.agreement:.2f}"
    )
    console.print("How good each task is: base_model/CARD.md")


def _show_next(port: int) -> None:
    console.print(f"""
Next:
  curl -s http://127.0.0.1:{port}/v1/generate -H 'content-type: application/json' \\
       -d '{{"task": "sentiment", "input": "a joyless mess"}}'
  chorus serve --model google/flan-t5-small           a real model from the hub
  chorus tasks push my-task prompt.safetensors        your own prompt (PEFT folders and .npy too)
  open http://127.0.0.1:{port}/docs                        every route""")


if __name__ == "__main__":
    sys.exit(main())
