"""What each method sends, and what it makes of the answer."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from chorus import AsyncClient, Client, FailedItem, InvalidArgumentError, NotFoundError
from chorus.batches import AsyncBatches, Batches
from chorus.client import (
    AsyncAudit,
    AsyncEnsembles,
    AsyncKeys,
    AsyncTasks,
    AsyncTenants,
    Audit,
    Ensembles,
    Keys,
    Tasks,
    Tenants,
)
from chorus.evaluations import AsyncEvaluations, Evaluations
from chorus.jobs import AsyncJobs, Jobs
from chorus.methods import Method, StreamMethod
from chorus.tuning import AsyncFiles, AsyncTuning, Files, Tuning
from tests.clients.fake_chorus import FakeChorus, parse_upload


def last(fake: FakeChorus) -> tuple[str, str, Any]:
    """Method, path with query, and JSON body of the last request."""
    request = fake.seen[-1]
    body = json.loads(request.content) if request.content else None
    return request.method, request.url.raw_path.decode(), body


def test_generate_sends_what_was_asked_and_nothing_else(client: Client, fake: FakeChorus) -> None:
    client.tasks.push("sst2", b"x")
    answer = client.generate("sst2", input="good", max_new_tokens=4, stop=["."])
    assert last(fake) == (
        "POST",
        "/v1/generate",
        {"task": "sst2", "input": "good", "max_new_tokens": 4, "stop": ["."]},
    )
    assert answer.text == "GOOD"
    assert answer.one.usage.prompt_tokens == 2


def test_base_model_is_a_null_task(client: Client, fake: FakeChorus) -> None:
    answer = client.generate(input="hello")
    assert last(fake)[2] == {"task": None, "input": "hello"}
    assert answer.one.version is None


def test_mixed_requests_take_settings_as_defaults(client: Client, fake: FakeChorus) -> None:
    client.tasks.push("a", b"x")
    items = [{"task": "a", "input": "one", "seed": 3}, {"task": None, "input": {"text": "two"}}]
    answer = client.generate(requests=items, seed=7)  # type: ignore[arg-type]
    assert last(fake)[2] == {
        "requests": [
            {"task": "a", "input": "one", "seed": 3},
            {"task": None, "input": {"text": "two"}},
        ],
        "seed": 7,
    }
    assert answer.texts == ["ONE", "TWO"]


def test_one_failed_item_leaves_the_others(client: Client) -> None:
    answer = client.generate(inputs=["fine", "fail"])
    assert [isinstance(item, FailedItem) for item in answer.results] == [False, True]
    assert answer.failures[1].code == "internal"
    with pytest.raises(Exception, match="It broke") as raised:
        _ = answer.texts
    assert type(raised.value).__name__ == "InternalError"


def test_text_of_a_batch_is_ambiguous(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="2 items"):
        _ = client.generate(inputs=["a", "b"]).text


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "input"),
        ({"input": "a", "inputs": ["b"]}, "input"),
        ({"inputs": "text"}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"requests": []}, "requests"),
        ({"requests": [{"input": "a"}], "input": "b"}, "requests"),
        ({"input": "a", "temperature": float("nan")}, "body"),
        ({"input": b"bytes"}, "body"),
    ],
)
def test_bad_arguments_are_refused_before_sending(
    client: Client, fake: FakeChorus, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        client.generate(**arguments)
    assert raised.value.field == field
    assert fake.seen == []


def test_classify_and_ensemble(client: Client, fake: FakeChorus) -> None:
    assert client.classify("a", inputs=["x", "y"], labels=("bad", "good")).labels == ["good", "good"]
    assert last(fake)[2] == {"task": "a", "inputs": ["x", "y"], "labels": ["bad", "good"]}
    answer = client.ensemble(tasks=["a", "b"], input="x", weights=[1, 2])
    assert last(fake)[2] == {"tasks": ["a", "b"], "input": "x", "weights": [1, 2]}
    assert answer.one.counts == {"yes": 2.0}
    assert client.ensemble("five", input="x").one.ensemble is not None
    assert last(fake)[2] == {"ensemble": "five", "input": "x"}
    with pytest.raises(InvalidArgumentError):
        client.ensemble(input="x")


def test_push_sends_file_and_metadata(client: Client, fake: FakeChorus) -> None:
    version = client.tasks.push(
        "sst2", b"\x00\x01", labels=("no", "yes"), settings={"max_new_tokens": 2}, template="say {text}"
    )
    content, metadata = parse_upload(fake.seen[-1])
    assert content == b"\x00\x01"
    assert metadata == {"template": "say {text}", "labels": ["no", "yes"], "settings": {"max_new_tokens": 2}}
    assert (version.version, version.created, version.aliases) == (1, True, ["live"])
    assert client.tasks.push("sst2", b"\x00\x01", labels=["no", "yes"], settings={"max_new_tokens": 2},
                             template="say {text}").created is False  # fmt: skip


def test_push_can_promote(client: Client, fake: FakeChorus) -> None:
    client.tasks.push("sst2", b"one")
    version = client.tasks.push("sst2", b"two", promote_to="live")
    assert (version.version, version.aliases, version.created) == (2, ["live"], True)
    assert [(r.method, r.url.path) for r in fake.seen[1:]] == [
        ("POST", "/v1/tasks/sst2/versions"),
        ("PUT", "/v1/tasks/sst2/aliases/live"),
        ("GET", "/v1/tasks/sst2/versions/2"),
    ]


def test_lists_follow_every_page(client: Client, fake: FakeChorus) -> None:
    for name in ("a", "b", "c", "d", "e"):
        client.tasks.push(name, b"x")
    fake.seen.clear()
    assert [task.task for task in client.tasks.list()] == [f"default/{name}" for name in "abcde"]
    assert [r.url.params.get("cursor") for r in fake.seen] == [None, "2", "4"]
    assert client.tasks.page(limit=1).next_cursor == "1" or client.tasks.page(limit=1).next_cursor == "2"


def test_moves(client: Client, fake: FakeChorus) -> None:
    client.tasks.push("a", b"1")
    client.tasks.push("a", b"2")
    assert client.tasks.promote("a", 2).previous == 1
    assert last(fake) == ("PUT", "/v1/tasks/a/aliases/live", {"version": 2})
    assert client.tasks.rollback("a").version == 1
    assert last(fake) == ("POST", "/v1/tasks/a/rollback", {"alias": "live"})
    client.tasks.promote("a", 2, expected=1)
    assert last(fake) == ("PUT", "/v1/tasks/a/aliases/live", {"version": 2, "expected": 1})
    client.tasks.rollback("a", version=1, expected=2)
    assert last(fake)[2] == {"alias": "live", "version": 1, "expected": 2}
    client.tasks.promote("a", 2, "canary", expected=0)
    assert last(fake)[2] == {"version": 2, "expected": 0}
    client.tasks.remove_alias("a", "canary")
    assert last(fake) == ("DELETE", "/v1/tasks/a/aliases/canary", None)
    assert [move.alias for move in client.tasks.aliases("a").history] == ["live"] * 4 + ["canary"]
    client.tasks.delete_version("a", 2)
    assert last(fake) == ("DELETE", "/v1/tasks/a/versions/2", None)
    client.tasks.delete("a")
    assert last(fake) == ("DELETE", "/v1/tasks/a", None)


@pytest.mark.parametrize(
    ("task", "version", "paths"),
    [
        ("a@2", None, ["/v1/tasks/a/versions/2"]),
        ("a", 2, ["/v1/tasks/a/versions/2"]),
        ("a", "2", ["/v1/tasks/a/versions/2"]),
        ("a", None, ["/v1/tasks/a", "/v1/tasks/a/versions/1"]),
        ("a@live", None, ["/v1/tasks/a", "/v1/tasks/a/versions/1"]),
        ("acme/a@2", None, ["/v1/tasks/a/versions/2?tenant=acme"]),
        ("acme/a", None, ["/v1/tasks/a?tenant=acme", "/v1/tasks/a/versions/1?tenant=acme"]),
    ],
)
def test_references_become_paths(
    client: Client, fake: FakeChorus, task: str, version: int | str | None, paths: list[str]
) -> None:
    client.tasks.push("a", b"1")
    client.tasks.push("a", b"2")
    fake.seen.clear()
    client.tasks.version(task, version)
    assert [request.url.raw_path.decode() for request in fake.seen] == paths


def test_unknown_alias_is_told_with_the_known_ones(client: Client) -> None:
    client.tasks.push("a", b"1")
    with pytest.raises(NotFoundError, match="live") as raised:
        client.tasks.version("a@canary")
    assert raised.value.code == "unknown_alias"


@pytest.mark.parametrize("task", ["", "a@", "/a", "a/b/c", ".", "..", "acme/..", "a\\b", "a@b/c", "\ud800"])
def test_odd_references_never_reach_the_server(client: Client, fake: FakeChorus, task: str) -> None:
    with pytest.raises(InvalidArgumentError):
        client.tasks.version(task, 1)
    assert fake.seen == []


def test_names_are_percent_encoded(client: Client, fake: FakeChorus) -> None:
    with pytest.raises(NotFoundError):
        client.tasks.get("a?b#c d")
    assert fake.seen[-1].url.raw_path == b"/v1/tasks/a%3Fb%23c%20d"


@pytest.mark.parametrize("verb", ["delete", "get", "rollback", "aliases", "versions"])
def test_a_version_is_no_task(client: Client, fake: FakeChorus, verb: str) -> None:
    """`delete("a@2")` must not delete all of `a`."""
    client.tasks.push("a", b"1")
    fake.seen.clear()
    with pytest.raises(InvalidArgumentError, match="names a version"):
        getattr(client.tasks, verb)("a@1")
    assert fake.seen == []


@pytest.mark.parametrize(
    ("change", "sent"),
    [
        (lambda c: c.tasks.push("acme/a", b"x"), "POST /v1/tasks/a/versions"),
        (lambda c: c.tasks.promote("acme/a", 1), "PUT /v1/tasks/a/aliases/live"),
        (lambda c: c.tasks.rollback("acme/a"), "POST /v1/tasks/a/rollback"),
        (lambda c: c.tasks.remove_alias("acme/a", "live"), "DELETE /v1/tasks/a/aliases/live"),
        (lambda c: c.tasks.delete_version("acme/a", 1), "DELETE /v1/tasks/a/versions/1"),
        (lambda c: c.tasks.delete("acme/a"), "DELETE /v1/tasks/a"),
        (lambda c: c.ensembles.create("acme/a", ["b"]), "POST /v1/ensembles/a/versions"),
        (lambda c: c.ensembles.delete("acme/a"), "DELETE /v1/ensembles/a"),
    ],
)
def test_a_change_tells_the_server_whose_it_is(
    client: Client, fake: FakeChorus, change: Any, sent: str
) -> None:
    """Left out, the change would be made in the key's own tenant, to something else of that name."""
    client.tasks.push("a", b"1")
    client.tasks.push("a", b"2", promote_to="live")
    client.ensembles.create("a", ["a"])
    fake.seen.clear()
    change(client)
    asked = fake.seen[0]
    assert f"{asked.method} {asked.url.raw_path.decode()}" == f"{sent}?tenant=acme"


def test_promoting_a_push_stays_in_its_tenant(client: Client, fake: FakeChorus) -> None:
    client.tasks.push("acme/a", b"x", promote_to="canary")
    assert [request.method for request in fake.seen] == ["POST", "PUT", "GET"]
    assert all(request.url.query == b"tenant=acme" for request in fake.seen)


def test_ensembles(client: Client, fake: FakeChorus) -> None:
    made = client.ensembles.create("five", ["a", "b@2"], weights=[1, 0.5])
    assert last(fake)[1:] == (
        "/v1/ensembles/five/versions",
        {"tasks": ["a", "b@2"], "vote": "majority", "weights": [1, 0.5]},
    )
    assert made.members[1].weight == 0.5
    client.ensembles.get("five@3")
    assert last(fake)[1] == "/v1/ensembles/five?version=3"
    client.ensembles.get("acme/five@canary")
    assert last(fake)[1] == "/v1/ensembles/five?tenant=acme&alias=canary"
    assert [e.version for e in client.ensembles.list()] == [1]
    client.ensembles.delete("five")
    with pytest.raises(NotFoundError):
        client.ensembles.get("five")


def test_service(client: Client, fake: FakeChorus) -> None:
    assert client.model().max_input_tokens == 128
    assert client.health().status == "ok"
    assert client.ready().ready
    fake.ready = False
    readiness = client.ready()
    assert (readiness.ready, readiness.done, readiness.total) == (False, 3, 24)
    assert client.metrics(scrape_token="scrape").startswith("# TYPE")
    assert fake.seen[-1].headers["authorization"] == "Bearer scrape"


def test_usage(client: Client, fake: FakeChorus) -> None:
    report = client.usage(
        since=datetime(2026, 11, 1, tzinfo=UTC), until="2026-12-01", group_by=["task", "day"], tenant="acme"
    )
    assert dict(fake.seen[-1].url.params.multi_items()) == {
        "from": "2026-11-01T00:00:00+00:00", "to": "2026-12-01", "group_by": "day", "tenant": "acme",
    }  # fmt: skip
    first, second = report.usage
    assert (first.start, first.task, first.items) == (datetime(2026, 11, 1, tzinfo=UTC), "acme/sst2", 1200)
    assert (second.task, second.key, report.group_by) == (None, None, ["task", "day"])
    client.usage()
    assert fake.seen[-1].url.query == b""
    client.usage(task="acme/sst2", top=3)
    client.usage(task=["a", "b"])
    asked = [request.url.params.multi_items() for request in fake.seen[-2:]]
    assert asked == [[("task", "acme/sst2"), ("top", "3")], [("task", "a"), ("task", "b")]]
    with pytest.raises(InvalidArgumentError, match="must name a task"):
        client.usage(task=[])


def test_operations(client: Client, fake: FakeChorus) -> None:
    now = client.operations()
    assert len(now.hour) == 360 and now.hour[0].median_seconds is None
    assert now.batch.last_prefill is not None and now.batch.last_prefill.padding == 0.193
    assert (now.queue.tenants[0].work_units, now.queue.others.tenants) == (2100, 2)
    assert now.store.check is not None and now.store.check.problems[0].count == 12
    begun = client.check_store()
    assert begun.clean is None is begun.ended_at and fake.seen[-1].method == "POST"
    assert client.operations(minutes=0).hour == []
    assert [request.url.params.get("minutes") for request in fake.seen[-3:]] == ["60", None, "0"]


def test_base_path_of_the_url_is_kept(fake: FakeChorus) -> None:
    with (
        Client("http://localhost/prefix/", transport=httpx2.MockTransport(fake)) as client,
        pytest.raises(NotFoundError),
    ):
        client.model()
    assert fake.seen[-1].url.path == "/prefix/v1/model"


def test_added_fields_are_kept() -> None:
    def newer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"status": "ok", "colour": "blue"})

    with Client(transport=httpx2.MockTransport(newer)) as client:
        assert client.health().model_dump() == {"status": "ok", "colour": "blue"}


@pytest.mark.parametrize(
    ("blocking", "awaited"),
    [
        (Client, AsyncClient),
        (Tasks, AsyncTasks),
        (Ensembles, AsyncEnsembles),
        (Files, AsyncFiles),
        (Tuning, AsyncTuning),
        (Evaluations, AsyncEvaluations),
        (Batches, AsyncBatches),
        (Jobs, AsyncJobs),
        (Tenants, AsyncTenants),
        (Keys, AsyncKeys),
        (Audit, AsyncAudit),
    ],
)
def test_both_clients_have_the_same_methods(blocking: type, awaited: type) -> None:
    def described(kind: type) -> dict[str, Any]:
        kinds = (Method, StreamMethod)
        return {name: each.describe for name, each in inspect.getmembers(kind) if isinstance(each, kinds)}

    assert described(blocking) == described(awaited)
    assert described(blocking)
    ours = {name for name, _ in inspect.getmembers(blocking) if not name.startswith("_")}
    assert ours == {name for name, _ in inspect.getmembers(awaited) if not name.startswith("_")}


@pytest.mark.parametrize(
    "owner", [Client, Tasks, Ensembles, Files, Tuning, Evaluations, Batches, Jobs, Tenants, Keys, Audit]
)
def test_methods_tell_what_they_take(owner: type) -> None:
    described = [each for _, each in inspect.getmembers(owner) if isinstance(each, (Method, StreamMethod))]
    assert described
    for each in described:
        assert each.__doc__, each.describe
        assert inspect.signature(each.describe).parameters is not None


def test_a_bound_method_has_the_route_signature(client: Client) -> None:
    assert list(inspect.signature(client.tasks.promote).parameters) == [
        "task",
        "version",
        "alias",
        "expected",
    ]
    assert "Point an alias" in (client.tasks.promote.__doc__ or "")
