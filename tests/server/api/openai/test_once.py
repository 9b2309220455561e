"""OpenAI's clients send a POST again by themselves, without a key: what they make is made once a minute."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx2
import pytest

from chorus_server.api.door.once import REPLAYED
from prompts_store.testing import FakeClock
from tests.server.api.api_harness import ApiServer, error_of
from tests.server.api.openai.files_tools import push

ROWS = b'{"prompt": "a good film", "completion": "good"}\n' * 12
Send = Callable[..., httpx2.Response]


@pytest.fixture
def clock(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClock]:
    """Time of the store stands still, at another day in each test."""
    clock = FakeClock()
    clock.advance(86_400 * len(api.store.list_jobs("default", None, limit=500).items) + 1)
    monkeypatch.setattr(api.store, "_clock", clock)
    yield clock


@pytest.fixture(scope="module")
def file(api: ApiServer) -> str:
    found: str = push(api, {"purpose": "fine-tune"}, ROWS, name="rows.jsonl").json()["id"]
    return found


def upload(api: ApiServer, file: str, more: str = "", **headers: str) -> httpx2.Response:
    return push(api, {"purpose": "fine-tune"}, b"{}\n" + more.encode(), name="a.jsonl", **headers)


def tune(api: ApiServer, file: str, more: str = "", **headers: str) -> httpx2.Response:
    body = {"model": "base", "training_file": file, "suffix": f"again{more}"}
    return api.http.post("/v1/fine_tuning/jobs", json=body, headers=headers)


def batch(api: ApiServer, file: str, more: str = "", **headers: str) -> httpx2.Response:
    body = {"input_file_id": file, "endpoint": "/v1/classify", "metadata": {"more": more}}
    return api.http.post("/openai/v1/batches", json=body, headers=headers)


def identity(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize("send", [upload, tune, batch])
def test_what_comes_again_within_a_minute_is_made_once(
    api: ApiServer, file: str, clock: FakeClock, send: Send
) -> None:
    first = send(api, file)
    clock.advance(59)
    again = send(api, file, **{"x-stainless-retry-count": "1"})
    assert identity(again) == identity(first)
    assert REPLAYED not in first.headers and again.headers[REPLAYED] == "true"
    assert identity(send(api, file, "-other")) != identity(first)
    clock.advance(1)
    assert identity(send(api, file)) != identity(first), "control"


@pytest.mark.parametrize("send", [upload, tune, batch])
def test_a_key_says_which_requests_are_one(api: ApiServer, file: str, clock: FakeClock, send: Send) -> None:
    one, other = ({"idempotency-key": f"{send.__name__} {number}"} for number in (1, 2))
    first = identity(send(api, file, **one))
    assert identity(send(api, file, **other)) != first
    clock.advance(3600)
    assert identity(send(api, file, **one)) == first
    refused = send(api, file, "-other", **one)
    error = error_of(refused)
    assert (refused.status_code, error["code"]) == (422, "idempotency_key_reused")
    assert error["field"] == "Idempotency-Key"


def test_the_purpose_of_a_file_is_part_of_what_is_asked(api: ApiServer, clock: FakeClock) -> None:
    for parts in ({"purpose": "batch"}, {"purpose": "user_data"}, {"purpose": "fine-tune"}):
        made = push(api, parts, b"{}\n{}\n").json()
        assert made["purpose"] == parts["purpose"]
        assert push(api, parts, b"{}\n{}\n").json() == made


@pytest.mark.parametrize("send", [tune, batch])
def test_what_was_cancelled_is_made_anew(api: ApiServer, file: str, clock: FakeClock, send: Send) -> None:
    first = identity(send(api, file, "-cancelled"))
    api.store.cancel_job("default", first)
    second = identity(send(api, file, "-cancelled"))
    assert second != first and identity(send(api, file, "-cancelled")) == second


def test_what_was_deleted_is_made_anew(api: ApiServer, file: str, clock: FakeClock) -> None:
    first = identity(upload(api, file, "{}"))
    assert api.http.delete(f"/openai/v1/files/{first}").status_code == 200
    assert identity(upload(api, file, "{}")) != first


def test_the_native_routes_make_another_each_time(api: ApiServer, clock: FakeClock) -> None:
    binary = {"content-type": "application/octet-stream"}
    ids = {
        api.http.post("/v1/files?name=n.jsonl", content=b"{}\n", headers=binary).json()["id"]
        for _ in range(2)
    }
    assert len(ids) == 2
