"""Tuning beside serving: p99 of requests at half load while a job trains in the same server, and while not.

Half load is half of the saturation just measured; arrivals are Poisson. Each pair of phases sends the same
requests at the same moments. One job is cancelled before a phase without and resumed for a phase with. Steps
that it made in its phases are counted, so that a job that never ran cannot look good.
"""

from __future__ import annotations

import json
import time
from typing import Any

from bench import Bench
from contenders import SHARED
from figures import Figure, Part, ceiling, percentile, spread_ms
from load import Felt, offer, saturate
from served import Served

_WAIT_SECONDS = 600.0
_OVER = ("failed", "succeeded", "cancelled")


def measure(bench: Bench) -> Part:
    """Phases with and without the job, in turns."""
    sizes, server = bench.sizes, bench.served
    full = saturate(bench, server, sizes.seconds_a_load)
    job = server.post("/v1/tuning/jobs", _document(bench, _upload_data(server)))["id"]
    _wait_steps(server, job)
    phases: dict[str, list[Felt]] = {"with": [], "without": []}
    alone = _Training(server).over(sizes.seconds_a_phase)
    beside: list[tuple[float, float]] = []
    for number in range(sizes.tuning_phases):
        training = _Training(server)
        phases["with"].append(offer(bench, server, full.rate / 2, sizes.seconds_a_phase, seed=number))
        beside.append(training.so_far())
        server.post(f"/v1/tuning/jobs/{job}/cancel", {})
        _wait(server, job, "cancelled")
        phases["without"].append(offer(bench, server, full.rate / 2, sizes.seconds_a_phase, seed=number))
        if number + 1 < sizes.tuning_phases:
            server.post(f"/v1/tuning/jobs/{job}/resume", {})
            _wait_steps(server, job)
    each = {name: [s for felt in felts for s in felt.seconds] for name, felts in phases.items()}
    ratio = percentile(each["with"], 0.99) / percentile(each["without"], 0.99)
    if not all(share for _, share in beside):
        raise RuntimeError("the job got no slice of the device in a phase that was to have it")
    steps, share = (sum(values) / len(beside) for values in zip(*beside, strict=True))
    return Part(
        [
            ceiling("p99 at half load while a job runs, over none running", ratio, 1.5),
            Figure("training steps a second at half load", steps, "steps/s"),
            Figure("training steps a second on an idle server", alone[0], "steps/s"),
            Figure("share of the time that training had at half load", share, "of 1"),
            Figure("half load", full.rate / 2, "requests/s"),
            ceiling("programs compiled because of requests", server.compiles_by_requests(), 0, "programs"),
        ],
        {
            "latency_ms": {name: spread_ms(seconds) for name, seconds in each.items()},
            "phases": {name: [felt.as_json() for felt in felts] for name, felts in phases.items()},
            "answers": {name: len(seconds) for name, seconds in each.items()},
            "saturation": full.as_json(),
            "recipe": _document(bench, "")["recipe"],
        },
    )


def _rows() -> list[tuple[str, str]]:
    """SST-2 where it is, else made-up reviews."""
    path = SHARED / "data" / "glue" / "SST-2" / "train.tsv"
    if path.exists():
        lines = path.read_text().splitlines()[1:2001]
        return [(text, "good" if label == "1" else "bad") for text, label in (x.split("\t") for x in lines)]
    words = {"good": ("warm", "funny", "wise"), "bad": ("slow", "dull", "loud")}
    kinds = ("film", "story", "play", "book", "song")
    return [
        (f"a {word} {kind}, number {n}", label)
        for n in range(40)
        for kind in kinds
        for label in words
        for word in words[label]
    ]


def _upload_data(server: Served) -> str:
    lines = [json.dumps({"sentence": text, "label": label}) for text, label in _rows()]
    answer = server.http.post(
        "/v1/files",
        params={"name": "train.jsonl"},
        content="\n".join(lines).encode(),
        headers={"Content-Type": "application/octet-stream"},
    )
    if answer.status_code != 201:
        raise RuntimeError(f"the training data was answered with {answer.status_code}: {answer.text}")
    return str(answer.json()["id"])


def _document(bench: Bench, file: str) -> dict[str, Any]:
    """A job that does not end within the benchmark; no evaluation falls into a phase."""
    quick = bench.sizes.model == "tiny"
    recipe = {
        "prompt_length": 4 if quick else 20,
        "batch_size": 8 if quick else 32,
        "max_input_tokens": 32 if quick else 128,
        "max_target_tokens": 8,
        "steps": 1_000_000,
        "evaluate_every_steps": 1_000_000,
        "checkpoint_every_steps": 100,
    }
    return {
        "task": "tuned",
        "data": {"train": {"file": file}, "validation_rows": 40},
        "template": "{sentence}",
        "target": "label",
        "labels": ["bad", "good"],
        "metrics": ["accuracy"],
        "recipe": recipe,
        "seed": 0,
    }


def _wait(server: Served, job: str, status: str) -> None:
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until:
        found = server.http.get(f"/v1/tuning/jobs/{job}").json()
        if found["status"] == status:
            return
        if found["status"] in _OVER:
            raise RuntimeError(f"the job is {found['status']} in place of {status}: {found['error']}")
        time.sleep(0.1)
    raise RuntimeError(f"the job did not get to be {status} within {_WAIT_SECONDS:.0f} s")


def _wait_steps(server: Served, job: str) -> None:
    """Until the job makes steps: compiled, and its first evaluation over."""
    before = server.metric("chorus_tuning_steps_total")
    _wait(server, job, "running")
    until = time.monotonic() + _WAIT_SECONDS
    while server.metric("chorus_tuning_steps_total") == before:
        if time.monotonic() > until:
            raise RuntimeError(f"the job made no step within {_WAIT_SECONDS:.0f} s")
        time.sleep(0.2)


class _Training:
    """What training does from now on, from the server's own metrics."""

    def __init__(self, server: Served) -> None:
        self._server, self._started, self._before = server, time.monotonic(), self._read(server)

    @staticmethod
    def _read(server: Served) -> tuple[float, float]:
        names = ("chorus_tuning_steps_total", "chorus_tuning_slice_seconds_sum")
        steps, device = (server.metric(name) for name in names)
        return steps, device

    def so_far(self) -> tuple[float, float]:
        """Steps a second, and the share of the time that slices took."""
        seconds = time.monotonic() - self._started
        steps, device = (now - then for now, then in zip(self._read(self._server), self._before, strict=True))
        return steps / seconds, device / seconds

    def over(self, seconds: float) -> tuple[float, float]:
        """The same after waiting for so long."""
        time.sleep(seconds)
        return self.so_far()
