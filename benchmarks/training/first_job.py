"""What a first tuning job costs on an otherwise idle server: wall clock and CPU seconds, compiles and steps.

    python -m benchmarks.training.first_job [--jobs 2] [--rows 1900] [--steps 40]

Starts `chorus serve` on the shipped base in an empty folder (settings by CHORUS_* variables as ever), and
runs the jobs one after another, each of 16 examples a step. The second one finds what the first compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from tether import tethered

WORDS = """
a an the of in to and with film movie story actor scene plot bright dull witty slow warm cold tender heavy
charming tedious gripping clumsy lovely bland thoughtful shallow honest empty funny stale fresh never quite
almost really its director camera music ending cast script dialogue performance characters
"""


def rows(count: int, seed: int = 1) -> str:
    """Sentences of the lengths of SST-2's phrases, by label, as TSV."""
    choose, words = random.Random(seed), WORDS.split()
    lines = ["sentence\tlabel"]
    for _ in range(count):
        length = min(48, max(2, round(choose.expovariate(1 / 9.4))))
        good = choose.random() < 0.5
        said = [choose.choice(words) for _ in range(length)] + ["good" if good else "bad"]
        lines.append(" ".join(said) + f"\t{int(good)}")
    return "\n".join(lines) + "\n"


def document(file: str, steps: int) -> dict[str, Any]:
    """The job, as `chorus tune` sends it."""
    return {
        "task": "first",
        "data": {"train": {"file": file}},
        "template": "{sentence}",
        "labels": ["negative", "positive"],
        "target_texts": {"0": "negative", "1": "positive"},
        "recipe": {"steps": steps, "batch_size": 16, "prompt_length": 20, "evaluate_every_steps": 20},
    }


def cpu_seconds(process: int) -> float:
    """User and system seconds of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_job(http: httpx2.Client, file: str, steps: int, process: int) -> dict[str, Any]:
    """One job to its end, and what it cost."""
    started, cpu = time.monotonic(), cpu_seconds(process)
    job = http.post("/v1/tuning/jobs", json=document(file, steps)).raise_for_status().json()
    while job["status"] not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.2)
        job = http.get(f"/v1/tuning/jobs/{job['id']}").raise_for_status().json()
    if job["status"] != "succeeded":
        raise SystemExit(f"the job {job['status']}: {job['error']}")
    events = _events(http, job["id"])
    compiled = [
        f"{data['name']} {data['seconds']}" + (" measuring" if data["measuring"] else "")
        for data in (each["data"] for each in events if each["kind"] == "program")
    ]
    return {
        "wall_seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(cpu_seconds(process) - cpu, 1),
        "phases": [f"{each['data']['status']} {each['at']}" for each in events if each["kind"] == "status"],
        "compiled": compiled,
        "sizes": job["progress"]["settled"]["sizes"],
        "warnings": [each["data"]["message"] for each in events if each["kind"] == "warning"],
    }


def _events(http: httpx2.Client, job: str) -> list[dict[str, Any]]:
    """Every event of a job that is over."""
    asked = http.get(f"/v1/tuning/jobs/{job}/events", params={"follow": "false", "limit": 500})
    found: list[dict[str, Any]] = asked.raise_for_status().json()["events"]
    return found


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1900)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--data", type=Path, help="A TSV with columns sentence and label. [default: made up]")
    options = parser.parse_args()
    content = rows(options.rows)
    if options.data is not None:
        content = "\n".join(options.data.read_text().splitlines()[: options.rows + 1]) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            tethered([Path(sys.executable).parent / "chorus", "serve"]),
            env=os.environ
            | {"CHORUS_DATA_DIR": folder, "CHORUS_HTTP_PORT": "0", "CHORUS_LOG_LEVEL": "warning"},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stderr is not None
            address = next(
                found[1] for line in server.stderr if (found := re.search(r"ready at (http://\S+)", line))
            )
            with httpx2.Client(base_url=address, timeout=600) as http:
                sent = http.post("/v1/files", files={"file": ("train.tsv", content)}).raise_for_status()
                file = sent.json()["id"]
                for _ in range(options.jobs):
                    print(json.dumps(run_job(http, file, options.steps, server.pid), indent=1), flush=True)
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=120)


if __name__ == "__main__":
    main()
