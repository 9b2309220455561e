"""Real tenants with keys of their own on a real server, and what their requests look like as bytes."""

from __future__ import annotations

import io
import json
import random
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
from figures import percentile
from open_loop import Sender, Shot, payload
from served import Served

from chorus.load.inputs import SENTENCES

PROMPT_ROWS = 20


class Tenants:
    """A server with tenants, each with a key and a task `own`.

    Args:
        settings: of the server, beside what tenants need.
    """

    def __init__(self, folder: Path, model: Path, cache: Path, settings: dict[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        operator = secrets.token_hex(32)
        secret = folder / "operator-key"
        secret.touch(mode=0o600)
        secret.write_text(operator)
        self.server = Served(
            folder / "data", model, cache, {"operator_key_file": secret, "log_level": "warning"} | settings
        )
        self._operator = httpx2.Client(
            base_url=self.server.url, headers={"Authorization": f"Bearer {operator}"}, timeout=300.0
        )
        self.keys: dict[str, str] = {}
        address = urlsplit(self.server.url)
        self.host, self.port = str(address.hostname), int(address.port or 0)

        self.width = int(_well(self._operator.get("/v1/model"))["config"]["d_model"])

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        self.server.http.headers["Authorization"] = self._operator.headers["Authorization"]
        return self.server.metric(name)

    def close(self) -> None:
        """End the server."""
        self._operator.close()
        self.server.close()

    def add(self, name: str, weight: float = 1.0) -> None:
        """Make a tenant, its key, and its task `own`."""
        _well(self._operator.post("/v1/tenants", json={"name": name, "weight": weight}))
        scopes = ["infer", "prompts:read", "prompts:write", "tune"]
        made = self._operator.post(f"/v1/keys?tenant={name}", json={"name": "bench", "scopes": scopes})
        self.keys[name] = _well(made)["key"]
        self.upload(name, "own", seed=len(self.keys))

    def limit(self, name: str, limits: dict[str, Any]) -> None:
        """Change what a tenant may use."""
        _well(self._operator.patch(f"/v1/tenants/{name}", json={"limits": limits}))

    def client(self, name: str) -> httpx2.Client:
        """A client with the tenant's key."""
        return httpx2.Client(
            base_url=self.server.url, headers={"Authorization": f"Bearer {self.keys[name]}"}, timeout=300.0
        )

    def upload(self, name: str, task: str, *, seed: int, rows: int = PROMPT_ROWS) -> None:
        """Publish a random prompt."""
        with self.client(name) as client:
            values = np.random.default_rng(seed).normal(0, 5, (rows, self.width)).astype("<f4")
            kind = {"Content-Type": "application/octet-stream"}
            _well(client.post(f"/v1/tasks/{task}/versions", content=npy(values), headers=kind))

    def payload(self, name: str, body: dict[str, Any], path: str = "/v1/generate") -> bytes:
        """A POST by the tenant, as bytes."""
        return payload(self.host, self.port, path, body, self.keys[name])

    def sender(self, payloads: Sequence[bytes], seed: int = 0) -> Sender:
        """A sender of these requests."""
        return Sender(self.host, self.port, payloads, seed)


def bodies(task: str | None, tokens: Sequence[int], most: int, **more: Any) -> list[dict[str, Any]]:
    """Generate bodies whose answers have at least so many tokens (one body a number), at most `most`."""
    draw = random.Random(1)
    return [
        {
            "task": task,
            "input": draw.choice(SENTENCES),
            "min_new_tokens": least,
            "max_new_tokens": most,
            **more,
        }
        for least in tokens
    ]


def latency_ms(shots: Sequence[Shot]) -> dict[str, float]:
    """p50 and p99 of answered requests, and how many were not answered."""
    answered = [shot.seconds for shot in shots if shot.status == 200]
    told = {
        f"p{share}": round(1e3 * percentile(answered, share / 100), 2) if answered else float("inf")
        for share in (50, 99)
    }
    return told | {"answered": len(answered), "failed": len(shots) - len(answered)}


def answers_within(shots: Sequence[Shot], seconds: float) -> int:
    """How many were answered in the first `seconds`."""
    return sum(shot.status == 200 and shot.due + shot.seconds <= seconds for shot in shots)


def _well(answer: httpx2.Response) -> dict[str, Any]:
    if answer.status_code not in (200, 201):
        raise RuntimeError(f"{answer.request.url} answered {answer.status_code}: {answer.text}")
    return dict(json.loads(answer.text))


def npy(values: np.ndarray[Any, Any]) -> bytes:
    """An array as a file."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()
