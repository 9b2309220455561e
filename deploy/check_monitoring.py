"""Runs every dashboard query and every alert rule against a real Prometheus that scrapes a server under load.

    python deploy/check_monitoring.py            needs `prometheus` (Debian's package) on the path

It starts two servers of the toy model on one data folder with a scrape token, a Prometheus with the
repository's own rules and four scrapes a second of each, and a load of mixed tasks. Every query must answer
without an error, with at least one series, and not only with NaN; those by replica with one for each server.
Every rule must evaluate and stay silent. Four broken queries must be found.
Everything listens on loopback and is stopped at the end. The exit code is 0 if all is well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from chorus import Client, InvalidInputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from tether import tethered

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "chorus.json"
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
START_SECONDS = 600.0
SCRAPES_WANTED, ROUNDS_WANTED = 12, 5
REPLICAS = 2
WORDS = {"good": "positive", "bad": "negative"}
VARIABLES = {"$__rate_interval": "30s", "$job": "chorus", "$replica": ".*", "$tenant": ".*", "$task": ".*"}
"""What a user has chosen, and Grafana fills in."""

CONTROLS = (
    ("control: no such metric", 'sum (rate(chorus_no_such_total{job="chorus"}[30s]))'),
    ("control: no PromQL", "sum (rate(chorus_ready"),
    ("control: nothing but NaN", "vector(0) / vector(0)"),
    ("control: only one replica", 'sum by (instance) (topk(1, chorus_ready{job="chorus"}))'),
)
SERVER = {
    # A few shapes are enough: the names of the metrics do not depend on how many are compiled.
    "CHORUS_SHAPES": "input_lengths=64 batch_rows=4 blocks=64x16x8 score_buckets=4x16",
    "CHORUS_PROMPT_ROWS": "256",
    "CHORUS_TUNING_SHARE": "0.3",
    # The versions that the load deletes are collected while Prometheus watches.
    "CHORUS_COLLECT_GRACE_SECONDS": "0",
    "JAX_PLATFORMS": "cpu",
}


@dataclass(frozen=True)
class Problem:
    """A query or rule that does not work."""

    where: str
    expression: str
    reason: str


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--toy", type=Path, default=ROOT / ".chorus" / "toy", help="folder of make_toy_model.py"
    )
    toy: Path = arguments.parse_args().toy
    if shutil.which("prometheus") is None:
        sys.exit("check_monitoring: no `prometheus` on the path (Debian: apt install prometheus)")
    if not (toy / "model").exists():
        subprocess.run([sys.executable, ROOT / "scripts" / "make_toy_model.py", toy], check=True)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        scratch = Path(name)
        (scratch / "token").write_text(secrets.token_urlsafe(24))
        (scratch / "key").write_text(secrets.token_urlsafe(24))
        *servers, prometheus = free_ports(REPLICAS + 1)
        for server in servers:
            stack.enter_context(chorus_server(toy, scratch, server))
        stack.enter_context(prometheus_server(scratch, servers, prometheus))
        key = (scratch / "key").read_text()
        clients = [
            stack.enter_context(Client(f"http://127.0.0.1:{server}", api_key=key)) for server in servers
        ]
        put_load(clients, toy, f"http://127.0.0.1:{prometheus}")
        url = f"http://127.0.0.1:{prometheus}"
        problems = [*check_queries(url, queries()), *check_rules(url), *check_controls(url)]
    for problem in problems:
        sys.stdout.write(f"FAILED {problem.where}: {problem.reason}\n    {problem.expression}\n")
    sys.stdout.write(f"{len(list(queries()))} queries, {len(problems)} problems\n")
    return 1 if problems else 0


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens. They are none that Linux gives to clients, and to servers at port 0: the
    last one is used only when the servers are ready."""
    found = set[int]()
    while len(found) < count:
        port = 32_000 + secrets.randbelow(768)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.add(port)
    return list(found)


@contextlib.contextmanager
def running(command: list[Any], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended when the block is left; its output goes to a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            tethered(command), stdout=output, stderr=output, env={**os.environ, **environment}
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until(ready: Any, process: subprocess.Popen[bytes], log: Path, what: str) -> None:
    """Poll another process, because it offers no event to wait on."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"check_monitoring: {what} did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether a GET returns 200."""
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


@contextlib.contextmanager
def chorus_server(toy: Path, scratch: Path, port: int) -> Iterator[None]:
    """`chorus serve` on the toy model, ready."""
    log = scratch / f"chorus-{port}.log"
    command = [
        Path(sys.executable).parent / "chorus",
        "serve",
        "--model",
        toy / "model",
        "--port",
        str(port),
    ]
    with running(
        command,
        log,
        CHORUS_DATA_DIR=str(scratch / "data"),
        CHORUS_COMPILE_CACHE_DIR=os.environ.get("CHORUS_COMPILE_CACHE_DIR", str(toy / "compile_cache")),
        CHORUS_API_KEY_FILE=str(scratch / "key"),
        CHORUS_SCRAPE_TOKEN_FILE=str(scratch / "token"),
        **SERVER,
    ) as process:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), process, log, "chorus")
        yield


@contextlib.contextmanager
def prometheus_server(scratch: Path, targets: Iterable[int], port: int) -> Iterator[None]:
    """A real Prometheus that scrapes the servers often, with the repository's rules."""
    config = {
        "global": {"scrape_interval": "250ms", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": "chorus",
                "authorization": {"credentials_file": str(scratch / "token")},
                "static_configs": [{"targets": [f"127.0.0.1:{target}" for target in targets]}],
            }
        ],
    }
    (scratch / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    log = scratch / "prometheus.log"
    command = [
        "prometheus",
        f"--config.file={scratch / 'prometheus.yml'}",
        f"--storage.tsdb.path={scratch / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, log) as process:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/-/ready"), process, log, "prometheus")
        yield


def put_load(clients: list[Client], toy: Path, prometheus: str) -> None:
    """Send mixed tasks, a stream, a vote, an upload and a refused upload in turn to the first server, mixed
    tasks to the others, until Prometheus has seen enough, of a slow machine several rounds.

    Each round uploads a new prompt, so that fetches from the store, loads onto the device and collected blobs
    go on as long as the load does, because a histogram without new values is NaN.
    """
    client, *others = clients
    tasks = [
        client.tasks.push(path.stem, path).task for path in sorted((toy / "prompts").glob("*.safetensors"))
    ]
    width, random = client.model().config["d_model"], np.random.default_rng(0)
    scrapes = 'count_over_time(chorus_uploads_accepted_total{job="chorus"}[1h])'
    tune(client)
    wanted = instant(prometheus, scrapes, 0) + SCRAPES_WANTED
    rounds = 0
    while rounds < ROUNDS_WANTED or instant(prometheus, scrapes, 0) < wanted:
        rounds += 1
        values = random.uniform(-0.5, 0.5, (20, width)).astype(np.float32)
        moving = client.tasks.push("moving", values, settings={"max_new_tokens": 4}, promote_to="live")
        mixed = [*tasks, moving.task]
        requests = [{"task": task, "input": "a warm and funny film"} for task in mixed]
        client.generate(requests=requests)
        for other in others:
            other.generate(requests=requests[:-1])
            list(other.stream(tasks[0], input="who wrote it ?"))
        list(client.stream(tasks[0], input="who wrote it ?"))
        client.classify(tasks[0], input="a slow and joyless mess", labels=["positive", "negative"])
        client.ensemble(tasks=[tasks[0], tasks[0]], input="a warm and funny film")
        if moving.version > 1:
            client.tasks.delete_version("moving", moving.version - 1)
        with contextlib.suppress(InvalidInputError):
            client.tasks.push("refused", b"this is no prompt")


def tune(client: Client) -> None:
    """One job that ends at once, and one that trains as long as the load goes on."""
    rows = [{"text": f"{word} film {n}", "label": label} for n in range(20) for word, label in WORDS.items()]
    recipe = {"steps": 1_000_000, "batch_size": 8, "micro_batch_size": 4, "prompt_length": 4}
    labels = sorted(WORDS.values())
    client.tuning.start("refused", train=[{"nothing": 1}], labels=labels, recipe=recipe)
    job = client.tuning.start("tuned", train=rows, labels=labels, recipe={**recipe, "max_input_tokens": 16})
    deadline = time.monotonic() + START_SECONDS
    while not client.tuning.get(job).progress.get("losses"):
        if time.monotonic() > deadline:
            sys.exit("check_monitoring: the tuning job does not start to train")
        time.sleep(0.2)


def ask(url: str, **parameters: str) -> Any:
    """The JSON of an answer of Prometheus."""
    return httpx2.get(url, params=parameters, timeout=300).json()


def instant(prometheus: str, expression: str, default: float) -> float:
    """One number from Prometheus."""
    result = ask(f"{prometheus}/api/v1/query", query=expression)["data"]["result"]
    return float(result[0]["value"][1]) if result else default


def queries() -> Iterator[tuple[str, str]]:
    """Panel title and PromQL of every dashboard query, with its variables filled in."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield panel["title"], expression


def check_queries(prometheus: str, wanted: Iterable[tuple[str, str]]) -> Iterator[Problem]:
    """A problem for every query that fails, is empty or gives only NaN."""
    for title, expression in wanted:
        answer = ask(f"{prometheus}/api/v1/query", query=expression)
        if answer["status"] != "success":
            yield Problem(title, expression, answer["error"])
        elif not answer["data"]["result"]:
            yield Problem(title, expression, "no series")
        elif all(series["value"][1] == "NaN" for series in answer["data"]["result"]):
            yield Problem(title, expression, "only NaN")
        elif "by (instance" in expression:
            found = {series["metric"]["instance"] for series in answer["data"]["result"]}
            if len(found) != REPLICAS:
                yield Problem(title, expression, f"{len(found)} replicas")


def check_controls(prometheus: str) -> Iterator[Problem]:
    """A problem for every broken query that this check would have accepted."""
    for title, expression in CONTROLS:
        if not list(check_queries(prometheus, [(title, expression)])):
            yield Problem(title, expression, "was not found")


def check_rules(prometheus: str) -> Iterator[Problem]:
    """A problem for every rule that Prometheus could not evaluate, or that fires on a healthy server."""
    groups = ask(f"{prometheus}/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    if not rules:
        yield Problem("rules", str(RULES), "Prometheus loaded none")
    for rule in rules:
        if rule["health"] != "ok":
            yield Problem(rule["name"], rule["query"], rule.get("lastError") or rule["health"])
        elif rule["state"] == "firing":
            yield Problem(rule["name"], rule["query"], "fires on a healthy server")


if __name__ == "__main__":
    sys.exit(main())
