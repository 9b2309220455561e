"""How long the console's pages take and weigh, with ten thousand tasks and a million versions.

    python benchmarks/console.py                             about ten minutes, 1.5 GB; writes a result
    python benchmarks/console.py --versions 20 --rounds 5    a trial: a fifth of the versions, no result

A real server of the base that ships, over HTTP, one caller with a session. The time is the server's, from the
first byte of a request to the last of its answer, on a connection that is open. Limits: a page 100 ms, a
table 50 ms; a page with all that it loads 150 kB. The pages are those of the console's routes.
Rows are made by SQL in the store's own tables, as in `registry.py`, and usage of a day for each task.
Writes benchmarks/results/DATE-MACHINE-console.json.
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import machine, versions
from registry import REST, VERSIONS

from chorus import Client
from prompts_store import PromptStore
from tests.clients.console.site_map import shown
from tests.end_to_end.served import Served

ROOT = Path(__file__).parents[1]
TASKS, EACH, ROUNDS = 10_000, 100, 40
LATER = "/console/tasks?cursor="
TABLES = (
    "/console/tasks", "/console/tasks?prefix=task-00777", "/console/tasks?label=positive",
    "/console/tasks/default/task-0000000", "/console/ensembles", "/console/packs", "/console/tune",
    "/console/jobs", "/console/tenants/keys", "/console/tenants/audit",
)  # fmt: skip
"""Lists that come in pages. The second page of tasks is measured too."""
PARTS = ("/files/", "/live", "/mistakes", "/fields")
"""Of addresses that are no whole pages."""
_TASKS = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :tasks)
INSERT INTO tasks (id, tenant, name, description, created_at, deleted_at, last_number, live_versions,
    deleted_by)
SELECT i + 1, 'default', printf('task-%07d', i), 'Sentiment of customer messages, set ' || i,
       1.7e15 + i * 1000, NULL, :many, :many, ''
FROM n
"""
_USAGE = """
WITH RECURSIVE k(h) AS (SELECT 0 UNION ALL SELECT h + 1 FROM k WHERE h < 24)
INSERT INTO usage_hours (tenant, hour, key, task, outcome, items, tokens_in, tokens_out, work_units)
SELECT 'default', :hour - h * 3600000000, '', 'default/' || name, 'answered', 100 + h, 3000, 400, 3400
FROM tasks, k
"""
_CSRF = re.compile(r'name="csrf" content="([0-9a-f]{64})"')
_LOADS = re.compile(r'(?:href|src)="(/console/files/[^"]+)"')
_NEXT = re.compile(r'href="(/console/tasks\?cursor=[^"]+)"')


def fill(folder: Path, each: int) -> dict[str, Any]:
    """Ten thousand tasks of so many versions, and what they were asked in the last day."""
    PromptStore.open(folder).close()
    hour = int(datetime.now(UTC).replace(minute=0, second=0, microsecond=0).timestamp()) * 1_000_000
    begun = time.perf_counter()
    with sqlite3.connect(folder / "chorus.db", isolation_level=None) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        connection.execute(_TASKS, {"tasks": TASKS, "many": each})
        connection.execute(VERSIONS, {"many": each, "base": "b" * 64})
        for statement in REST:
            connection.execute(statement)
        connection.execute(_USAGE, {"hour": hour})
        connection.execute("COMMIT")
        made = {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in ("tasks", "versions", "alias_moves", "usage_hours")
        }
    connection.close()
    return {"rows": made, "seconds": round(time.perf_counter() - begun, 1)}


def make_things(url: str, key: str) -> dict[str, str]:
    """Something of each kind for the names in the paths of the console's routes."""
    with Client(url, key) as client:
        for number in (1, 2):
            client.packs.create("drawer", {"mood": f"sentiment@{number}"})
            client.ensembles.create("panel", [f"sentiment@{number}", "sentiment@3"])
        client.packs.promote("drawer", 2)
        client.ensembles.promote("panel", 2)
        made = client.keys.create("measured", scopes=["infer"])
        rows = [{"text": "a joyless mess", "label": "negative"}, {"text": "funny", "label": "positive"}]
        job = client.evaluations.wait(client.evaluations.start(["sentiment@1", "sentiment@3"], rows * 4))
        recipe = {"steps": 2, "prompt_length": 8}
        tuning = client.tuning.start("shelved", train=rows * 8, target="label", recipe=recipe)
        client.tuning.cancel(tuning)
        return {
            "tenant": "default", "task": "sentiment", "pack": "drawer", "ensemble": "panel", "key": made.id,
            "job": job.id, "tuning": tuning.id, "file": str(job.result["predictions"]),
        }  # fmt: skip


def measured(browser: httpx2.Client, path: str, rounds: int) -> dict[str, float]:
    """Milliseconds of a page, and bytes of it with all that it loads."""
    seconds = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        answer = browser.get(path)
        seconds.append(time.perf_counter() - begun)
        assert answer.status_code in (200, 303), (path, answer.status_code)
    loaded = {each.partition("?")[0] for each in _LOADS.findall(answer.text)}
    size = len(answer.content) + sum(len(browser.get(each).content) for each in sorted(loaded))
    times = sorted(1000 * each for each in seconds[1:])  # the first finds nothing in any cache
    return {"median_ms": statistics.median(times), "p95_ms": times[int(0.95 * len(times))], "bytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and weigh the console's pages.")
    parser.add_argument("--versions", type=int, help="of each task, for a trial")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        set_up = fill(folder, given.versions or EACH)
        print(set_up)
        (secret := folder / "operator.key").write_text("an-operator-of-this-machine")
        shapes = {"shapes": "input_lengths=64 batch_rows=4 blocks=64x32x4 score_buckets=4x64"}
        with Served(folder, operator_key_file=secret, layout="scanned", **shapes) as server:
            server.wait_ready()
            things = make_things(str(server.http.base_url), secret.read_text())
            with httpx2.Client(base_url=server.http.base_url, timeout=60) as browser:
                found = _CSRF.search(browser.get("/console/sign-in").text)
                assert found is not None
                browser.post("/console/sign-in", data={"key": secret.read_text(), "csrf": found[1]})
                later = _NEXT.findall(browser.get("/console/tasks").text)[0].replace("&amp;", "&")
                paths = [
                    *TABLES,
                    later,
                    *(each for each in shown(things) if not any(p in each for p in PARTS)),
                ]
                pages = {path: measured(browser, path, given.rounds) for path in dict.fromkeys(paths)}
    for path, each in pages.items():
        limit = 50 if path in TABLES or path.startswith(LATER) else 100
        mark = " " if each["median_ms"] <= limit and each["bytes"] <= 150_000 else "!"
        times = f"{each['median_ms']:7.1f} ms  p95 {each['p95_ms']:7.1f}"
        print(f"{mark} {path[:80]:80} {times}  {each['bytes']:,} bytes")
    if given.versions is None:
        result: dict[str, Any] = {"what": "console", "set_up": set_up, "rounds": given.rounds, "pages": pages}
        result |= {"machine": machine(), "versions": versions(Path(sys.executable))}
        result["date"] = datetime.now(UTC).isoformat()
        day = datetime.now(UTC).date().isoformat()
        target = ROOT / "benchmarks" / "results" / f"{day}-{machine()['name']}-console.json"
        target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
