"""Two real server processes on one database: together they admit what one bucket would."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from prompts_store.store import PromptStore
from prompts_store.tenants.limits import TenantLimits
from tests.server.api.api_harness import train_vocabulary
from tests.server.api.replicas import serving

LIMIT, SENT = 120, 150


def admitted(urls: list[str]) -> tuple[int, float]:
    """How many were, of `SENT` requests to each in turn, and what one bucket would have admitted."""
    count, begin = 0, time.monotonic()
    with httpx2.Client(timeout=300) as client:
        for n in range(SENT * len(urls)):
            body = {"task": None, "input": "good", "max_new_tokens": 1}
            answer = client.post(f"{urls[n % len(urls)]}/v1/generate", json=body)
            assert answer.status_code in (200, 429), answer.text
            count += answer.status_code == 200
    seconds = time.monotonic() - begin
    return count, min(LIMIT * (1 + seconds / 60), SENT * len(urls))


@pytest.fixture(scope="module")
def spiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_vocabulary(tmp_path_factory.mktemp("vocabulary"))


def limited(folder: Path) -> Path:
    with closing(PromptStore.open(folder)) as store:
        limits = TenantLimits.model_validate({"per_minute": {"requests": LIMIT}})
        store.create_tenant("default", limits=limits)
    return folder


@pytest.mark.parametrize("sides", ["even", "one-sided"])
def test_two_processes_share_a_limit(tmp_path: Path, spiece: Path, sides: str) -> None:
    folder = limited(tmp_path)
    with serving(folder, spiece) as one, serving(folder, spiece) as two:
        count, ideal = admitted([one, two] if sides == "even" else [one])
        assert 0.9 * ideal <= count <= 1.1 * ideal


def test_without_leases_each_takes_all(tmp_path: Path, spiece: Path) -> None:
    """The control."""
    folder = limited(tmp_path)
    with serving(folder, spiece, "apart") as one, serving(folder, spiece, "apart") as two:
        count, ideal = admitted([one, two])
        assert count > 1.1 * ideal


def test_a_restart_gives_nothing_anew(tmp_path: Path, spiece: Path) -> None:
    folder, began = limited(tmp_path), time.monotonic()
    with serving(folder, spiece) as one:
        count, _ = admitted([one])
    with serving(folder, spiece) as again, httpx2.Client(timeout=300) as client:
        left = client.get(f"{again}/v1/me").json()["limits"]["left"][0]
        # What came back by the clock, however long the start of a process took.
        assert left["left"] <= LIMIT * (1 + (time.monotonic() - began) / 60) - count + 1
