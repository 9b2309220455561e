"""Limits of tenants and keys over HTTP, on every inference route. Time stands still for budgets here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chorus_server.errors import OverloadedError
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.tenants.limits import KeyLimits, TenantLimits
from tests.server.api.api_harness import (
    ApiServer,
    Gate,
    counted,
    error_of,
    eventually,
    gated_server,
    send,
    stop_time,
)

MESSAGES = [{"role": "user", "content": "good"}]
BODIES: dict[str, tuple[str, dict[str, Any], int]] = {
    "generate": ("/v1/generate", {"task": None, "input": "good", "max_new_tokens": 4}, 1),
    "batch": ("/v1/generate", {"task": "limited", "inputs": ["good", "bad"], "max_new_tokens": 4}, 2),
    "stream": ("/v1/generate", {"task": None, "input": "good", "max_new_tokens": 4, "stream": True}, 1),
    "classify": ("/v1/classify", {"task": "limited", "inputs": ["good", "film"]}, 2),
    "ensemble": ("/v1/ensemble", {"tasks": ["limited", "limited@1"], "input": "good"}, 2),
    "completions": ("/v1/completions", {"model": "base", "prompt": ["good", "bad"], "max_tokens": 4}, 2),
    "chat": ("/openai/v1/chat/completions", {"model": "base", "messages": MESSAGES, "max_tokens": 4}, 1),
    "chat stream": (
        "/openai/v1/chat/completions",
        {"model": "base", "messages": MESSAGES, "max_tokens": 4, "stream": True},
        1,
    ),
    "responses": ("/v1/responses", {"model": "base", "input": "good", "max_output_tokens": 4}, 1),
}
"""Every inference route: a body, and how many items it is."""


class Limited:
    """A server whose clocks for budgets only the test moves."""

    def __init__(self, api: ApiServer) -> None:
        self.api, self.seconds, self.begin = api, 1000.0, datetime(2026, 3, 10, 12, tzinfo=UTC)
        api.push("limited", labels=["no", "yes"])
        stop_time(api)  # who asks stays known until the test changes it, however busy the machine is
        budgets = api.services.budgets
        budgets._clock = budgets._leasing._clock = lambda: self.seconds
        budgets._now = api.store._clock = self.now

    def now(self) -> datetime:
        return self.begin + timedelta(seconds=self.seconds)

    def limit(self, tenant: str = "default", **limits: Any) -> None:
        """Change a tenant's limits, and see that at once."""
        self.api.store.update_tenant(tenant, limits=TenantLimits.model_validate(limits))
        self.api.services.callers.forget()

    def ask(self, name: str = "generate", key: str | None = None, **more: Any) -> httpx2.Response:
        path, body, _ = BODIES[name]
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return self.api.http.post(path, json=body | more, headers=headers)

    def left(self, key: str | None = None) -> dict[str, Any]:
        """What `GET /v1/me` says is left, once all that was answered is settled."""
        eventually(lambda: not self.api.services.budgets._held)
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        limits = self.api.http.get("/v1/me", headers=headers).json()["limits"]["left"]
        return {f"{each['of']} {each['limit']}": each["left"] for each in limits}


@pytest.fixture
def limited(tmp_path: Path, vocabulary: Vocabulary) -> Iterator[Limited]:
    with ApiServer(tmp_path, vocabulary, follows=False) as api:
        yield Limited(api)


def refused_for(answer: httpx2.Response) -> dict[str, Any]:
    """The quota of a refusal."""
    assert answer.status_code == 429, answer.text
    error = error_of(answer)
    assert error["code"] == "limit_exceeded" and int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/json"
    quota: dict[str, Any] = error["quota"]
    return quota


def test_no_limit_no_header(limited: Limited) -> None:
    answer = limited.ask()
    assert answer.status_code == 200
    assert not [name for name in answer.headers if "ratelimit" in name.lower() or "budget" in name.lower()]
    assert limited.left() == {}


@pytest.mark.parametrize("name", BODIES)
def test_every_inference_route_is_limited(limited: Limited, name: str) -> None:
    items = BODIES[name][2]
    limited.limit(per_minute={"requests": 2 * items})
    first = limited.ask(name)
    assert first.status_code == 200, first.text
    assert first.headers["x-ratelimit-limit-requests"] == str(2 * items)
    assert first.headers["x-ratelimit-remaining-requests"] == str(items)
    assert first.headers["x-ratelimit-reset-requests"] == "30s"
    assert first.headers["ratelimit"] == f'"tenant-requests-minute";r={items};t=30'
    assert first.headers["ratelimit-policy"] == f'"tenant-requests-minute";q={2 * items};w=60'
    assert limited.ask(name).status_code == 200
    refused = limited.ask(name)
    if "retry-after-ms" in refused.headers:  # in OpenAI's shape
        assert (refused.status_code, error_of(refused)["code"]) == (429, "limit_exceeded")
        assert int(refused.headers["retry-after-ms"]) <= 1000 * int(refused.headers["retry-after"])
    else:
        assert refused_for(refused) == {
            "of": "tenant", "limit": "per_minute.requests", "window": "minute", "most": 2 * items,
            "used": 2 * items,
        }  # fmt: skip
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["ratelimit"] == '"tenant-requests-minute";r=0;t=60'
    assert counted(limited.api, "chorus_budget_refusals_total", limit="per_minute.requests") == 1
    limited.seconds += 30
    assert limited.ask(name).status_code == 200


@pytest.mark.parametrize("name", BODIES)
def test_what_was_not_produced_comes_back(limited: Limited, name: str) -> None:
    """Reserved at the most that it may cost, settled on what it cost."""
    limited.limit(per_minute={"tokens": 100_000, "work_units": 100_000})
    answer = limited.ask(name)
    assert answer.status_code == 200
    reserved = 100_000 - int(answer.headers["x-ratelimit-remaining-tokens"])
    left = limited.left()
    limited.api.services.usage.save()
    limited.api.services.usage.send()
    sums = limited.api.store.usage(limited.begin, datetime.max.replace(tzinfo=UTC, year=2200), tenant=None)[0]
    used = sums.tokens_in + sums.tokens_out
    assert 100_000 - left["tenant per_minute.tokens"] == used <= reserved
    assert 100_000 - left["tenant per_minute.work_units"] == sums.work_units


@pytest.mark.parametrize("window", ["per_minute", "per_month"])
def test_what_is_more_than_the_whole_limit_is_not_to_be_tried_again(limited: Limited, window: str) -> None:
    limits: dict[str, Any] = {window: {"tokens": {"hard": 1} if window == "per_month" else 1}}
    limited.limit(**limits)
    refused = limited.ask()
    assert (refused.status_code, error_of(refused)["quota"]["most"]) == (429, 1)
    assert "retry-after" not in refused.headers
    chat = limited.ask("chat")
    assert chat.status_code == 429 and chat.headers["x-should-retry"] == "false"
    assert not {"retry-after", "retry-after-ms"} & chat.headers.keys()


def test_the_time_until_the_next(limited: Limited) -> None:
    limited.limit(per_minute={"requests": 2})
    assert [limited.ask().status_code for _ in range(3)] == [200, 200, 429]
    refused = limited.ask()
    assert refused.headers["retry-after"] == "30" and refused.headers["x-ratelimit-reset-requests"] == "1m0s"
    limited.seconds += 29.9
    assert limited.ask().status_code == 429
    limited.seconds += 0.1  # exactly; the store is asked once a second, so a little more passes
    assert limited.ask().headers["retry-after"] == "1"
    limited.seconds += 1
    assert limited.ask().status_code == 200


def test_what_is_refused_costs_nothing(limited: Limited, monkeypatch: pytest.MonkeyPatch) -> None:
    limited.limit(per_minute={"requests": 2})
    assert "send fewer" in error_of(limited.ask("batch", inputs=["a"] * 3))["message"]
    assert limited.left() == {"tenant per_minute.requests": 2}
    assert limited.ask("batch", task="absent").status_code == 404
    engine = limited.api.engine
    with monkeypatch.context() as patch:  # the engine refuses
        error = OverloadedError("full", retry_after_seconds=1)
        patch.setattr(engine, "submit_all", lambda requests: [error for _ in requests])
        assert [limited.ask(name).status_code for name in ("generate", "batch", "stream")] == [503, 503, 200]
    assert limited.left() == {"tenant per_minute.requests": 2}
    assert limited.ask("batch").status_code == 200
    assert limited.left() == {"tenant per_minute.requests": 0}


def test_it_is_refused_before_its_body_is_read(limited: Limited) -> None:
    limited.limit(per_minute={"requests": 1})

    def broken() -> httpx2.Response:
        return limited.api.http.post(
            "/v1/generate", content=b"{", headers={"content-type": "application/json"}
        )

    assert limited.ask().status_code == 200
    assert broken().status_code == 400, "the control: not known yet"
    assert limited.ask().status_code == 429
    refused = broken()
    assert refused_for(refused)["limit"] == "per_minute.requests"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_key_and_its_tenant(limited: Limited) -> None:
    """Both are counted; of two, headers tell the tighter, and the body of a 429 the one that refuses."""
    limited.api.store.create_tenant("acme")
    limited.limit("acme", per_minute={"requests": 3})
    two = KeyLimits.model_validate({"per_minute": {"requests": 2}})
    small = limited.api.store.create_key("acme", "small", scopes=["infer"], limits=two)[1]
    free = limited.api.store.create_key("acme", "free", scopes=["infer"])[1]
    first = limited.ask(key=small)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["ratelimit"] == ('"tenant-requests-minute";r=2;t=20, "key-requests-minute";r=1;t=30')
    assert limited.ask(key=small).status_code == 200
    assert refused_for(limited.ask(key=small))["of"] == "key"
    assert limited.left(small) == {"tenant per_minute.requests": 1, "key per_minute.requests": 0}
    assert limited.ask(key=free).headers["x-ratelimit-remaining-requests"] == "0"
    assert refused_for(limited.ask(key=free))["of"] == "tenant"


def test_a_key_from_a_file_is_limited_by_its_tenant(tmp_path: Path, vocabulary: Vocabulary) -> None:
    key = "a-key-from-a-file-0123456789"
    owner = Principal("default", "file", frozenset(Scope))
    ring = KeyRing({key: owner}, Principal("default", "anonymous"))
    with ApiServer(tmp_path, vocabulary, follows=False, keys=ring) as api:
        api.http.headers["authorization"] = f"Bearer {key}"
        limited = Limited(api)
        limited.limit(per_minute={"requests": 1})
        assert [limited.ask(key=key).status_code for _ in range(2)] == [200, 429]


def test_a_month(limited: Limited, caplog: pytest.LogCaptureFixture) -> None:
    limited.limit(per_month={"requests": {"soft": 2, "hard": 3}})
    first, second, third = (limited.ask() for _ in range(3))
    assert [each.status_code for each in (first, second, third)] == [200, 200, 200]
    assert "chorus-budget-warning" not in first.headers
    assert second.headers["chorus-budget-warning"] == '"tenant-requests-month";used=2;soft=2'
    assert third.headers["x-ratelimit-remaining-requests"] == "0"
    quota = refused_for(refused := limited.ask())
    assert quota == {
        "of": "tenant", "limit": "per_month.requests", "window": "month", "most": 3, "used": 3,
    }  # fmt: skip
    end = datetime(2026, 4, 1, tzinfo=UTC) - limited.now()
    assert abs(int(refused.headers["retry-after"]) - end.total_seconds()) <= 1
    assert counted(limited.api, "chorus_budget_warnings_total", limit="per_month.requests") == 1
    told = [each for each in caplog.records if "soft limit per_month.requests" in each.getMessage()]
    assert len(told) == 1
    limited.seconds += end.total_seconds() + 1
    again = limited.ask()
    assert again.status_code == 200 and "chorus-budget-warning" not in again.headers
    assert limited.left() == {"tenant per_month.requests": 2}


def test_a_month_that_only_warns_counts_what_was_used_before(limited: Limited) -> None:
    usage = limited.api.services.usage
    usage._clock = lambda: int(1e9 * limited.now().timestamp())
    for _ in range(2):
        assert limited.ask("batch").status_code == 200  # without a limit
    usage.save()
    usage.send()
    limited.limit(per_month={"requests": {"soft": 5}})
    assert limited.ask().headers["chorus-budget-warning"] == '"tenant-requests-month";used=5;soft=5'
    assert limited.ask().headers["chorus-budget-warning"] == '"tenant-requests-month";used=6;soft=5'
    assert limited.left() == {"tenant per_month.requests": None}


def test_a_limit_that_is_raised_lets_in_at_once(limited: Limited) -> None:
    limited.limit(per_minute={"requests": 1})
    assert [limited.ask().status_code for _ in range(2)] == [200, 429]
    limited.limit(per_minute={"requests": 4})
    assert limited.ask().status_code == 200
    limited.limit()
    assert "x-ratelimit-limit-requests" not in limited.ask().headers


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("window", ["in_flight", "queued"])
def test_places(tmp_path: Path, vocabulary: Vocabulary, gate: Gate, window: Any, leaves: bool) -> None:
    """A request that the engine holds in its step is in flight; the one behind it waits."""
    with gated_server(tmp_path, vocabulary, gate, follows=False) as api:
        limited = Limited(api)
        limits: dict[str, Any] = {window: {"requests": 1}}
        limited.limit(**limits)
        gate.close()
        body = {"task": None, "input": "good", "max_new_tokens": 2}
        clients = [send(api, "/v1/generate", body)]
        assert gate.waiting.wait(300)
        if window == "queued":
            clients.append(send(api, "/v1/generate", body))
            eventually(lambda: len(api.services.budgets._held) == 2)
        quota = refused_for(refused := limited.ask())
        assert quota["limit"] == f"{window}.requests" and refused.headers["retry-after"] == "1"
        assert quota["used"] == 1 and "x-ratelimit-limit-requests" not in refused.headers
        if leaves:
            for client in clients:
                client.close()
            eventually(lambda: not api.services.budgets._held)
        gate.open.set()
        if not leaves:
            for client in clients:
                assert client.recv(65536).startswith(b"HTTP/1.1 200")
                client.close()
        eventually(lambda: not api.services.budgets._held)
        limited.seconds += 2
        assert limited.ask().status_code == 200
        assert limited.left() == {f"tenant {window}.requests": 1}
        assert api.engine.wait_idle(300)


def test_many_at_once_wait_for_one_question(limited: Limited) -> None:
    limited.limit(per_minute={"requests": 40})
    budgets = limited.api.services.budgets
    leasing = budgets._leasing
    asked, honest = [], leasing._ask_store

    def all_wait() -> bool:
        return sum(line.waiting for each in list(budgets._subjects.values()) for line in each.lines) == 50

    def counting(*args: Any, **options: Any) -> Any:
        asked.append(len(args[1]))
        if len(asked) == 1:  # the first question is under way until everybody is there
            eventually(all_wait)
        return honest(*args, **options)

    leasing._ask_store = counting

    async def all_at_once() -> list[int]:
        async with httpx2.AsyncClient(base_url=limited.api.url, timeout=300) as client:
            path, body, _ = BODIES["generate"]
            answers = await asyncio.gather(*(client.post(path, json=body) for _ in range(50)))
            return [answer.status_code for answer in answers]

    codes = asyncio.run(all_at_once())
    assert codes.count(200) == 40 and codes.count(429) == 10
    assert len(asked) < 5
