"""What requests used: a row for each item, added up by `GET /v1/usage`, and nothing of what they said."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from chorus_server.api.routes.usage import UsageAnswer
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal, Scope
from chorus_server.tenancy.usage import UsageRecorder
from prompts_store.database import EVERY_TENANT
from prompts_store.database.usage_tables import usage, usage_hours
from prompts_store.store import PromptStore
from tests.prompts_store.usage.usage_rows import REPLICA, row
from tests.server.api.api_harness import ApiServer, Gate, error_of, eventually, gated_server, send

WIDE = {"from": "2020-01-01", "to": "2090-01-01"}
CANARY = "qzxv"


def write(api: ApiServer) -> None:
    """Do at once what the recorder's threads do each second."""
    api.services.usage.save()
    api.services.usage.send()


def asked(api: ApiServer, *groups: str, **query: Any) -> list[dict[str, Any]]:
    """The answer's sums."""
    write(api)
    answer = api.http.get("/v1/usage", params={**WIDE, "group_by": groups, **query})
    assert answer.status_code == 200, answer.text
    UsageAnswer.model_validate(answer.json(), strict=False)
    found: list[dict[str, Any]] = answer.json()["usage"]
    return found


def rows(store: PromptStore) -> list[dict[str, Any]]:
    with store._database.read(EVERY_TENANT) as connection:
        return [dict(each._mapping) for each in connection.execute(usage.select().order_by(usage.c.sequence))]


@pytest.fixture
def api(tmp_path: Path, vocabulary: Vocabulary) -> Any:
    with ApiServer(tmp_path / "data", vocabulary) as server:
        server.push("mood", labels=["good", "bad"])
        yield server


def test_every_item_has_a_row_that_agrees_with_its_answer(api: ApiServer) -> None:
    body = {"requests": [{"task": "mood", "input": "great film"}, {"task": None, "input": "the sky"}]}
    answer = api.post("/v1/generate", {**body, "max_new_tokens": 6})
    results, found = answer.json()["results"], []
    write(api)
    found = sorted(rows(api.store), key=lambda each: each["item"])
    for index, (result, each) in enumerate(zip(results, found, strict=True)):
        counts = result["usage"]
        assert (each["tokens_in"], each["tokens_out"]) == (counts["input_tokens"], counts["output_tokens"])
        assert each["work_units"] == counts["input_tokens"] + counts["output_tokens"]
        assert (each["task"], each["digest"]) == (result["task"] or "", result["digest"] or "")
        assert (each["tenant"], each["key"], each["outcome"]) == ("default", "", "answered")
        assert (each["request_id"], each["item"]) == (answer.headers["x-request-id"], index)
        assert abs(datetime.now(UTC) - each["at"]) < timedelta(days=1)


@pytest.mark.parametrize("stream", [False, True])
def test_streams_and_plain_answers_count_alike(api: ApiServer, stream: bool) -> None:
    api.post("/v1/generate", {"task": "mood", "inputs": ["good"] * 3, "stream": stream, "seed": 1})
    (found,) = asked(api, "outcome")
    assert (found["outcome"], found["items"]) == ("answered", 3)


def test_labels_and_votes_count_what_was_scored(api: ApiServer, vocabulary: Vocabulary) -> None:
    answer = api.post("/v1/classify", {"task": "mood", "input": "a film"})
    write(api)
    (each,) = rows(api.store)
    targets = sum(len(vocabulary.encode(label)) + 1 for label in ("good", "bad"))
    tokens_in = answer.json()["results"][0]["usage"]["input_tokens"]
    assert (each["tokens_in"], each["tokens_out"], each["work_units"]) == (tokens_in, 0, tokens_in + targets)
    api.push("mood-2", seed=2, labels=["good", "bad"])
    api.post("/v1/ensemble", {"tasks": ["mood", "mood-2"], "inputs": ["a film", "the sky"]})
    assert {each["task"]: each["items"] for each in asked(api, "task")} == {
        "default/mood": 3, "default/mood-2": 2,
    }  # fmt: skip


def test_refused_requests_have_no_row(api: ApiServer) -> None:
    for path, body in (
        ("/v1/generate", {"task": "nonsense", "input": "a"}),
        ("/v1/generate", {"task": None, "input": "a", "max_new_tokens": 10_000}),
        ("/v1/classify", {"task": "mood", "input": "a", "labels": ["one"]}),
    ):
        assert api.post(path, body).status_code in (400, 404)
    assert asked(api, "outcome") == []
    (nothing,) = asked(api)
    assert (nothing["items"], nothing["work_units"]) == (0, 0)


def test_a_caller_who_leaves_has_a_cancelled_row(tmp_path: Path, vocabulary: Vocabulary, gate: Gate) -> None:
    with gated_server(tmp_path / "data", vocabulary, gate) as api:
        gate.close()
        client = send(api, "/v1/generate", {"task": None, "inputs": ["a", "b"], "max_new_tokens": 6})
        assert gate.waiting.wait(300)
        client.close()
        eventually(lambda: [(s["outcome"], s["items"]) for s in asked(api, "outcome")] == [("cancelled", 2)])
        gate.open.set()


def test_groups_and_times(api: ApiServer) -> None:
    hour = datetime(2030, 5, 31, 23, tzinfo=UTC)
    given = [
        row(number, hour + timedelta(minutes=50 * number), "default", key=f"key-{number % 2}")
        for number in range(4)
    ]
    api.store.record_usage(REPLICA, [*given, row(9, hour, "other")])
    assert [(s["start"], s["items"]) for s in asked(api, "hour")] == [
        ("2030-05-31T23:00:00Z", 2), ("2030-06-01T00:00:00Z", 1), ("2030-06-01T01:00:00Z", 1),
    ]  # fmt: skip
    assert [(s["start"], s["items"]) for s in asked(api, "month")] == [
        ("2030-05-01T00:00:00Z", 2), ("2030-06-01T00:00:00Z", 2),
    ]  # fmt: skip
    assert [(s["start"], s["key"], s["items"]) for s in asked(api, "key", "day", "key")] == [
        ("2030-05-31T00:00:00Z", "key-0", 1), ("2030-05-31T00:00:00Z", "key-1", 1),
        ("2030-06-01T00:00:00Z", "key-0", 1), ("2030-06-01T00:00:00Z", "key-1", 1),
    ]  # fmt: skip
    assert asked(api, **{"from": "2030-06-01T00:00:00Z", "to": "2030-06-01T03:00:00+02:00"})[0]["items"] == 1
    assert api.http.get("/v1/usage").json()["usage"][0]["items"] == 0, "this month"
    assert [each["tenant"] for each in asked(api, "tenant")] == ["default"], "nobody else's"


def test_some_tasks_and_the_largest(api: ApiServer) -> None:
    begin = datetime(2030, 5, 1, tzinfo=UTC)
    units = {"default/a": 5, "default/b": 40, "other/a": 7, "": 90}
    given = [
        row(number, begin, "default", task=task, work_units=units[task]) for number, task in enumerate(units)
    ]
    api.store.record_usage(REPLICA, given)
    names = [each["task"] for each in asked(api, "task", top=3)]
    assert names == [None, "default/b", "other/a"]
    assert [each["task"] for each in asked(api, "task", task=["a", "other/a", "nobody"])] == [
        "default/a",
        "other/a",
    ]
    (most,) = asked(api, "task", task=["a", "default/b"], top=1)
    assert (most["task"], most["work_units"]) == ("default/b", 40)
    query = {**WIDE, "group_by": "task", "task": "b", "top": 5}
    text = api.http.get("/v1/usage", params=query, headers={"accept": "text/csv"}).text
    assert text.splitlines()[1:] == ["default/b,1,7,3,40"]


def test_csv_has_a_column_for_each_group(api: ApiServer) -> None:
    api.post("/v1/generate", {"requests": [{"task": "mood", "input": "a"}, {"task": None, "input": "b"}]})
    write(api)
    query = {**WIDE, "group_by": ["task", "day"]}
    answer = api.http.get("/v1/usage", params=query, headers={"accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert list(lines[0]) == ["start", "task", "items", "tokens_in", "tokens_out", "work_units"]
    assert [line["task"] for line in lines] == ["", "default/mood"]
    told = [(s["start"], s["task"] or "", str(s["work_units"])) for s in asked(api, "task", "day")]
    assert [(line["start"], line["task"], line["work_units"]) for line in lines] == told
    whole = api.http.get("/v1/usage", params=WIDE, headers={"accept": "text/csv"})
    assert whole.text.splitlines()[0] == "items,tokens_in,tokens_out,work_units"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"group_by": "week"}, "group_by.0"),
        ({"group_by": ["day", "hour"]}, "group_by"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2030-01-02", "to": "2030-01-01"}, "to"),
        ({"to": "9999-12-31T23:59:59Z"}, "to"),
        ({"from": "0001-01-01", "to": "2030-01-01"}, "from"),
        ({"group_by": ["task"] * 9}, "group_by"),
        ({"top": 0}, "top"),
        ({"top": 501}, "top"),
        ({"task": ["a"] * 101}, "task"),
        ({"task": ["a", "b\0"]}, "task"),
        ({"task": "a/b/c"}, "task"),
        ({"task": ""}, "task.0"),
        ({"since": "2030-01-01"}, "since"),
    ],
)
def test_bad_questions_name_the_field(api: ApiServer, query: dict[str, Any], field: str) -> None:
    answer = api.http.get("/v1/usage", params=query)
    assert (answer.status_code, error_of(answer)["field"]) == (400, field), answer.text


@contextmanager
def called_by(folder: Path, vocabulary: Vocabulary, caller: Principal) -> Iterator[ApiServer]:
    """A server whose caller is this one."""
    ring = KeyRing({"s" * 32: caller}, Principal("default", "anonymous"))
    with ApiServer(folder, vocabulary, keys=ring) as api:
        api.http.headers["authorization"] = f"Bearer {'s' * 32}"
        yield api


def test_another_tenants_usage_is_for_operators(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with called_by(
        tmp_path / "admin", vocabulary, Principal("acme", "admin", frozenset({Scope.READ}))
    ) as api:
        answer = api.http.get("/v1/usage", params={"tenant": "other"})
        assert (answer.status_code, error_of(answer)["code"]) == (404, "unknown_tenant")
        assert api.http.get("/v1/usage").status_code == 200
    operator = Principal("acme", "operator", frozenset({Scope.READ, Scope.OPERATOR}))
    with called_by(tmp_path / "operator", vocabulary, operator) as api:
        api.store.record_usage(REPLICA, [row(1, tenant="other")])
        (found,) = asked(api, "tenant", tenant="other")
        assert (found["tenant"], found["items"]) == ("other", 1)


def test_a_key_for_some_tasks_does_not_see_the_tenants_usage(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with called_by(tmp_path / "data", vocabulary, Principal("acme", "app", tasks=("mood",))) as api:
        answer = api.http.get("/v1/usage")
        assert (answer.status_code, error_of(answer)["code"]) == (403, "forbidden")


def test_a_keys_id_and_tenant_are_in_its_rows(tmp_path: Path, vocabulary: Vocabulary) -> None:
    caller = Principal("acme", "app", key="key-" + "a" * 24)
    ring = KeyRing({"s" * 32: caller}, Principal("default", "anonymous"))
    with ApiServer(tmp_path / "data", vocabulary, keys=ring) as api:
        api.http.headers["authorization"] = f"Bearer {'s' * 32}"
        api.post("/v1/generate", {"task": None, "input": "a"})
        (found,) = asked(api, "tenant", "key")
        assert (found["tenant"], found["key"], found["items"]) == ("acme", caller.key, 1)


def test_no_row_has_what_was_asked_or_answered(tmp_path: Path, vocabulary: Vocabulary) -> None:
    folder = tmp_path / "data"
    with ApiServer(folder, vocabulary) as api:
        api.push("mood", labels=["good", CANARY])
        with api.services.usage._sending:  # so that the spool is not emptied meanwhile
            for body in (
                {"task": "mood", "input": CANARY, "stop": [CANARY]},
                {"task": "mood", "inputs": [CANARY, "good"], "stream": True},
            ):
                assert api.post("/v1/generate", body).status_code == 200
            assert api.post("/v1/classify", {"task": "mood", "input": f"{CANARY} film"}).status_code == 200
            api.services.usage.save()
            (spool,) = (folder / "usage").glob("*.jsonl")
            spooled = spool.read_text()
        write(api)
        with api.store._database.read(EVERY_TENANT) as connection:
            stored = repr([list(connection.execute(table.select())) for table in (usage, usage_hours)])
    assert all("default/mood" in kept and CANARY not in kept for kept in (spooled, stored))


def test_an_end_writes_what_was_just_answered(
    tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a busy machine's database takes."""
    monkeypatch.setattr(UsageRecorder, "close", partialmethod(UsageRecorder.close, 300.0))
    with ApiServer(tmp_path / "data", vocabulary) as api:
        for _ in range(5):
            api.post("/v1/generate", {"task": None, "inputs": ["a", "b"]})
    with closing(PromptStore.open(tmp_path / "data")) as store:
        assert len(rows(store)) == 10
    assert not list((tmp_path / "data" / "usage").glob("*"))
