"""`/v1/batches`: lines answered as their routes answer, faults of files, errors of lines, limits, keys."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest

from chorus_server.api.batch import work
from chorus_server.api.batch.answering import AnsweredLine, BatchLine
from chorus_server.api.batch.lines import Endpoint
from chorus_server.api.jobs.patience import PatientCall
from chorus_server.api.schemas.documents.batch import BatchEndpoint
from chorus_server.jobs_wiring import ENDPOINTS, start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal, Scope
from tests.memory import peak_bytes
from tests.server.api.api_harness import ApiServer, Gate, counted, error_of, eventually, gated_server

BINARY = {"content-type": "application/octet-stream"}
LABELS = ["no", "yes"]
TEXTS = ["good film", "bad movie", "a funny movie", "waste of two hours", "moving", "the sky is warm"]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    """A server with two tasks, that takes batches."""
    with ApiServer(tmp_path_factory.mktemp("batches"), vocabulary) as server:
        server.push("first", labels=LABELS, template="review: {text}")
        server.push("second", seed=1, labels=LABELS)
        start_engine_jobs(server.services)
        yield server
        assert server.engine.wait_idle(300)


def line(custom_id: str, body: Any, url: str = "/v1/classify", **changes: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body, **changes}


def upload(api: ApiServer, lines: list[Any] | bytes, name: str = "lines.jsonl", **headers: str) -> str:
    content = lines if isinstance(lines, bytes) else "".join(json.dumps(each) + "\n" for each in lines)
    answer = api.http.post("/v1/files", params={"name": name}, content=content, headers=BINARY | headers)
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


def start(api: ApiServer, file: str, endpoint: str = "/v1/classify", **fields: Any) -> httpx2.Response:
    return api.post("/v1/batches", {"file": file, "endpoint": endpoint, **fields})


def run(api: ApiServer, lines: list[Any] | bytes, endpoint: str = "/v1/classify") -> dict[str, Any]:
    """The batch once it is over."""
    answer = start(api, upload(api, lines), endpoint)
    assert answer.status_code == 201, answer.text
    path = f"/v1/batches/{answer.json()['id']}"
    eventually(lambda: api.http.get(path).json()["finished_at"] is not None)
    found: dict[str, Any] = api.http.get(path).json()
    return found


def succeeded(api: ApiServer, lines: list[Any], endpoint: str = "/v1/classify") -> dict[str, Any]:
    found = run(api, lines, endpoint)
    assert found["status"] == "succeeded", found["error"]
    result: dict[str, Any] = found["result"]
    return result


def answers(api: ApiServer, file: str | None) -> list[dict[str, Any]]:
    if file is None:
        return []
    content = api.http.get(f"/v1/files/{file}/content")
    assert content.status_code == 200
    return [json.loads(each) for each in content.text.splitlines()]


def without_ids(body: Any) -> Any:
    """An answer without what differs each time."""
    return {name: value for name, value in body.items() if name not in ("id", "created")}


@pytest.mark.parametrize("url", ENDPOINTS)
def test_lines_are_answered_as_requests_are(api: ApiServer, url: str) -> None:
    bodies: list[dict[str, Any]] = {
        "/v1/classify": [{"task": "first", "input": text} for text in TEXTS]
        + [{"task": "second", "inputs": TEXTS}],
        "/v1/generate": [
            {"task": "second", "input": text, "max_new_tokens": 3, "temperature": 1, "seed": 5}
            for text in TEXTS
        ],
        "/v1/decisions": [
            {"model": "first", "input": text, "questions": [{"type": "predicate", "instructions": "good?"}]}
            for text in TEXTS[:3]
        ],
        "/v1/completions": [{"model": "second", "prompt": text, "max_tokens": 3} for text in TEXTS],
        "/v1/chat/completions": [
            {"model": "second", "messages": [{"role": "user", "content": text}], "temperature": 0}
            for text in TEXTS
        ],
    }[url]
    assert set(ENDPOINTS) == set(get_args(BatchEndpoint))
    if url == "/v1/decisions":
        choice = {"type": "choice", "choices": [{"value": "no"}, {"value": "yes"}], "instructions": ""}
        bodies = [{**body, "questions": [choice]} for body in bodies]
    result = succeeded(api, [line(f"n {place}", body, url) for place, body in enumerate(bodies)], url)
    assert result["rows"] == len(bodies) and result["failed"] == 0 and result["error_file"] is None
    found = answers(api, result["output_file"])
    assert [each["custom_id"] for each in found] == [f"n {place}" for place in range(len(bodies))]
    for each, body in zip(found, bodies, strict=True):
        asked = api.post(url, body)
        assert asked.status_code == 200, asked.text
        assert set(each) == {"id", "custom_id", "response", "error"} and each["error"] is None
        assert each["response"]["status_code"] == 200 and each["response"]["request_id"] == each["id"]
        assert without_ids(each["response"]["body"]) == without_ids(asked.json())
    used = [part.get("usage", {}) for each in found for part in _parts(each["response"]["body"])]
    names = (
        ("prompt_tokens", "completion_tokens") if "completions" in url else ("input_tokens", "output_tokens")
    )
    for ours, theirs in zip(("input_tokens", "output_tokens"), names, strict=True):
        assert result["usage"][ours] == sum(each[theirs] for each in used)
    assert result["usage"]["input_tokens"] > 0


def _parts(body: dict[str, Any]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] | None = body.get("results")
    return [body] if results is None else results


def test_a_line_that_cannot_be_answered_is_a_line_of_the_error_file(api: ApiServer) -> None:
    long = {"task": "first", "input": "good " * 2_000}
    nested = json.loads("[" * 15 + "]" * 15)
    lines = [
        line("good", {"task": "first", "input": "good film"}),
        line("unknown task", {"task": "nothing", "input": "good film"}),
        line("unknown field", {"task": "first", "input": "good film", "colour": 1}),
        line("wrong type", {"task": "first", "input": 7}),
        line("too long", long),
        line("many", {"task": "first", "inputs": ["a"] * 2_000}),
        line("as deep as can be", {"task": "first", "input": "good film", "colour": nested}),
        line("late", {"task": "first", "input": "good film", "deadline_seconds": 3}),
        line("cut", {**long, "truncate": True}),
    ]
    result = succeeded(api, lines)
    assert (result["rows"], result["failed"]) == (9, 7)
    assert [each["custom_id"] for each in answers(api, result["output_file"])] == ["good", "cut"]
    bad = {each["custom_id"]: each["response"] for each in answers(api, result["error_file"])}
    for each in lines[1:7]:
        asked = api.post("/v1/classify", each["body"])
        response = bad[each["custom_id"]]
        assert response["status_code"] == asked.status_code
        ours, theirs = response["body"]["error"], asked.json()["error"]
        assert ours | {"request_id": ""} == theirs | {"request_id": ""}
    assert bad["late"]["body"]["error"]["field"] == "deadline_seconds"


def test_errors_have_the_shape_of_their_route(api: ApiServer) -> None:
    question = {"type": "predicate", "instructions": "good?"}
    body = {"model": "nothing", "input": "good film", "questions": [question]}
    result = succeeded(api, [line("a", body, "/v1/decisions")], "/v1/decisions")
    assert result["output_file"] is None
    (found,) = answers(api, result["error_file"])
    asked = api.post("/v1/decisions", body)
    assert found["response"]["status_code"] == asked.status_code == 404
    assert found["response"]["body"] == asked.json()


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/generate", {"task": "second", "input": "good film", "max_new_tokens": 2}),
        ("/v1/completions", {"model": "second", "prompt": "good film", "max_tokens": 2}),
    ],
)
def test_a_streaming_line_is_refused_by_itself(api: ApiServer, url: str, body: dict[str, Any]) -> None:
    lines = [line("a", {**body, "stream": True}, url), line("b", body, url)]
    result = succeeded(api, lines, url)
    (bad,) = answers(api, result["error_file"])
    error = bad["response"]["body"]["error"]
    assert bad["custom_id"] == "a" and error.get("field", error.get("param")) == "stream"
    assert [each["custom_id"] for each in answers(api, result["output_file"])] == ["b"]


GOOD = line("a", {"task": "first", "input": "good film"})
FAULTS: dict[str, tuple[bytes | list[Any], int, str | None, str]] = {
    "not json": (b'{"custom_id": "a"\n', 1, "body", "not valid JSON"),
    "binary": (b"\x00\xff\x00\n", 1, "body", "not valid JSON"),
    "a list": ([GOOD, [1]], 2, None, "an object of custom_id"),
    "no id": ([{**GOOD, "custom_id": None}], 1, "custom_id", "1 to 512"),
    "long id": ([{**GOOD, "custom_id": "a" * 513}], 1, "custom_id", "1 to 512"),
    "surrogate": (json.dumps({**GOOD, "custom_id": "\ud800"}).encode(), 1, "body", ""),
    "method": ([{**GOOD, "method": "GET"}], 1, "method", "'POST'"),
    "url": ([{**GOOD, "url": "/v1/generate"}], 1, "url", "'/v1/classify'"),
    "no body": ([{**GOOD, "body": "x"}], 1, "body", "an object"),
    "unknown field": ([{**GOOD, "colour": 1}], 1, "colour", "no such field"),
    "doubled": ([GOOD, line("b", {}), GOOD], 3, "custom_id", "Line 1"),
    "empty": (b"\n \n", 1, None, "no lines"),
    "nan": (b'{"custom_id": "a", "body": {"x": NaN}}', 1, "body", "not valid JSON"),
    "deep": (b'{"body": ' + b"[" * 40 + b"]" * 40 + b"}", 1, "body" + ".0" * 15, "nested"),
    "many beside the body": ([{**GOOD, "colour": ["a"] * 2_000}], 1, "colour", "more than"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_with_faults_fails_before_any_line_is_asked(api: ApiServer, name: str) -> None:
    content, number, param, words = FAULTS[name]
    asked = counted(api, "chorus_requests_total", kind="score", outcome="ok")
    found = run(api, content)
    assert found["status"] == "failed" and found["error"]["field"] == "file", found
    assert f"Line {number}" in found["error"]["message"] and words in found["error"]["message"]
    fault = found["progress"]["faults"][0]
    assert (fault["line"], fault["param"]) == (number, param)
    assert counted(api, "chorus_requests_total", kind="score", outcome="ok") == asked and not found["result"]


def test_blank_lines_and_a_byte_order_mark_are_passed_over(api: ApiServer) -> None:
    lines = b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\n  \n"
    found = run(api, lines + json.dumps({**GOOD, "custom_id": "b"}).encode())
    assert found["status"] == "succeeded", found["error"]
    output = answers(api, found["result"]["output_file"])
    assert [each["custom_id"] for each in output] == ["a", "b"]


def test_a_line_longer_than_a_body_may_be_is_never_read_whole(tmp_path: Path, vocabulary: Vocabulary) -> None:
    """A line of 30 MiB is told in memory of a few of the limit; in the control a server reads it whole."""
    long = json.dumps(line("a", {"task": None, "input": "x" * (30 << 20)})).encode() + b"\n"
    for most, words, peak in ((64 << 10, "longer than 65536 bytes", (0, 4)), (64 << 20, "", (30, 400))):
        with ApiServer(tmp_path / str(most), vocabulary, max_body_bytes=most) as api:
            file = upload(api, long + json.dumps(GOOD).encode())
            start_engine_jobs(api.services)
            found: dict[str, Any] = {}
            job = start(api, file).json()["id"]

            def ended(api: ApiServer = api, job: str = job, found: dict[str, Any] = found) -> None:
                eventually(lambda: api.http.get(f"/v1/batches/{job}").json()["finished_at"] is not None)
                found |= api.http.get(f"/v1/batches/{job}").json()

            taken = peak_bytes(ended) / 2**20
            assert peak[0] <= taken <= peak[1], taken
            assert words in (found["error"] or {}).get("message", "")


def test_a_line_whose_texts_take_too_much_memory(tmp_path: Path, vocabulary: Vocabulary) -> None:
    wide, url = "\U0001f600" * 4_000, "/v1/completions"
    with ApiServer(tmp_path, vocabulary, max_body_bytes=64 << 10) as api:
        start_engine_jobs(api.services)
        (bad,) = answers(
            api, succeeded(api, [line("a", {"model": "base", "prompt": wide}, url)], url)["error_file"]
        )
        assert bad["response"]["status_code"] == 413
        assert bad["response"]["body"]["error"]["code"] == "too_large"
        found = run(api, [line("a", {}, url), line(wide, {}, url)], url)
        assert found["error"]["message"].startswith("Line 2, body: The body's texts would take more")


def test_at_most_twenty_faults_are_told(api: ApiServer) -> None:
    found = run(api, [{**GOOD, "method": "GET"}] * 50)
    assert len(found["progress"]["faults"]) == 20 and "20 faults" in found["error"]["message"]


def test_what_is_not_a_document_is_refused(api: ApiServer) -> None:
    file = upload(api, [GOOD])
    for body, field in (
        ({"endpoint": "/v1/classify"}, "file"),
        ({"file": file}, "endpoint"),
        ({"file": file, "endpoint": "/v1/ensemble"}, "endpoint"),
        ({"file": file, "endpoint": "/v1/classify", "metadata": {"a": 1}}, "metadata.a"),
        ({"file": file, "endpoint": "/v1/classify", "metadata": {"a" * 65: "b"}}, "metadata"),
        ({"file": file, "endpoint": "/v1/classify", "base_fingerprint": "other"}, "base_fingerprint"),
        ({"file": "file-0", "endpoint": "/v1/classify"}, "file"),
    ):
        answer = api.post("/v1/batches", body)
        assert answer.status_code in (400, 404) and error_of(answer)["field"] == field, answer.text


def test_lists_events_and_metadata(api: ApiServer) -> None:
    answer = start(api, upload(api, [GOOD]), metadata={"who": "me"})
    job = answer.json()["id"]
    eventually(lambda: api.http.get(f"/v1/batches/{job}").json()["finished_at"] is not None)
    assert api.http.get(f"/v1/batches/{job}").json()["metadata"] == {"who": "me"}
    listed = api.http.get("/v1/batches", params={"status": "succeeded"}).json()["batches"]
    assert job in [each["id"] for each in listed]
    events = api.http.get(f"/v1/batches/{job}/events", params={"follow": "false"}).json()["events"]
    kinds = [each["kind"] for each in events]
    assert "rows" in kinds and "answered" in kinds and kinds[-1] == "status"
    for other in ("evaluations", "tuning/jobs"):
        assert api.http.get(f"/v1/{other}/{job}").status_code == 404


def close_before(gate: Gate, row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Close the gate when the block that begins with this row is asked for the first time. The batch does not
    get past it, and 16 blocks are under way at most."""
    assert row % work.LINES_AT_ONCE == 0
    honest = work.answer_lines

    async def answer_lines(endpoint: Endpoint, lines: Sequence[BatchLine], call: PatientCall) -> Any:
        if lines[0].request_id.endswith(f".{row + 1}") and not gate.waiting.is_set():
            gate.close()
        return await honest(endpoint, lines, call)

    monkeypatch.setattr(work, "answer_lines", answer_lines)


def test_a_cancelled_batch_goes_on_after_its_last_answered_line(
    tmp_path: Path, vocabulary: Vocabulary, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_before(gate, 1008, monkeypatch)
    with gated_server(tmp_path, vocabulary, gate) as api:
        api.push("first", labels=LABELS)
        start_engine_jobs(api.services)
        lines = [line(f"{n}", {"task": "first", "input": f"{TEXTS[n % 6]} {n}"}) for n in range(2_000)]
        job = start(api, upload(api, lines)).json()["id"]
        assert gate.waiting.wait(300)
        eventually(lambda: api.store.get_job("default", job).progress.get("rows", 0) > 0)
        cancelled = api.post(f"/v1/batches/{job}/cancel", None)
        assert cancelled.status_code == 200, cancelled.text
        eventually(lambda: api.store.get_job("default", job).finished_at is not None)
        gate.open.set()
        stopped = api.store.get_job("default", job)
        assert stopped.status == "cancelled" and 0 < stopped.progress["rows"] < 2_000
        some = answers(api, stopped.result["output_file"])
        assert [each["custom_id"] for each in some] == [f"{n}" for n in range(stopped.result["rows"])]
        assert api.engine.wait_idle(300)
        parts = (tmp_path / "jobs" / "default" / job).glob("lines-*")
        kept = sum(path.read_bytes().count(b"\n") for path in parts)
        asked = counted(api, "chorus_requests_total", kind="score", outcome="ok")
        resumed = api.post(f"/v1/batches/{job}/resume", None)
        assert resumed.status_code == 200 and resumed.json()["result"] == {}, resumed.text
        eventually(lambda: api.store.get_job("default", job).finished_at is not None)
        over = api.store.get_job("default", job)
        assert over.status == "succeeded", over.error
        output = answers(api, over.result["output_file"])
        assert [each["custom_id"] for each in output] == [f"{n}" for n in range(2_000)]
        again = counted(api, "chorus_requests_total", kind="score", outcome="ok") - asked
        assert kept >= stopped.progress["rows"] and again == 2_000 - kept, "no answered line is asked again"


def test_a_cancelled_batch_stays_cancelled_where_its_files_cannot_be_stored(
    tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer is longer than its line, and a file may not be longer than those of the lines."""
    held, goes_on, honest = threading.Event(), threading.Event(), work._Work.keep

    def keep(self: Any, answered: list[AnsweredLine]) -> None:
        honest(self, answered)
        if self.log.counts.lines > 600 and not held.is_set():
            held.set()
            assert goes_on.wait(300)

    monkeypatch.setattr(work._Work, "keep", keep)
    lines = [line(f"{n}", {"task": "first", "input": f"{TEXTS[n % 6]} {n}"}) for n in range(1_000)]
    most = sum(len(json.dumps(each)) + 1 for each in lines)
    with ApiServer(tmp_path, vocabulary, tuning_max_file_bytes=most) as api:
        api.push("first", labels=LABELS)
        start_engine_jobs(api.services)
        job = start(api, upload(api, lines)).json()["id"]
        assert held.wait(300)
        assert api.post(f"/v1/batches/{job}/cancel", None).status_code == 200
        goes_on.set()
        eventually(lambda: api.store.get_job("default", job).finished_at is not None)
        over = api.store.get_job("default", job)
        assert over.status == "cancelled" and over.error is None
        assert over.result["rows"] > 600 and over.result["output_file"] is None
        events = api.http.get(f"/v1/batches/{job}/events", params={"follow": "false"}).json()["events"]
        (warning,) = [each["data"]["message"] for each in events if each["kind"] == "warning"]
        assert "could not be stored (output)" in warning
        assert [each.id for each in api.store.list_files("default").items] == [over.spec["file"]]


def test_a_key_for_some_tasks_asks_and_sees_only_these(tmp_path: Path, vocabulary: Vocabulary) -> None:
    everything, some, tuner = "e" * 16, "s" * 16, "t" * 16
    keys = {
        everything: Principal("ours", "all"),
        some: Principal("ours", "some", tasks=("first",)),
        tuner: Principal("ours", "tuner", frozenset({Scope.TUNE, Scope.READ})),
    }
    with ApiServer(tmp_path, vocabulary, keys=KeyRing(keys, Principal("ours", "anonymous"))) as api:
        api.http.headers["authorization"] = f"Bearer {everything}"
        api.push("first", labels=LABELS)
        api.push("second", seed=1, labels=LABELS)
        start_engine_jobs(api.services)
        lines = [line(task, {"task": task, "input": "good"}) for task in ("first", "second")]
        file = upload(api, lines)
        hidden = start(api, file).json()["id"]
        mine = {"authorization": f"Bearer {some}"}
        body = {"file": file, "endpoint": "/v1/classify"}
        assert api.http.post("/v1/batches", json=body, headers=mine).status_code == 404
        body["file"] = upload(api, lines, **mine)
        shown = api.http.post("/v1/batches", json=body, headers=mine).json()["id"]
        for job, asked in ((hidden, ["first", "second"]), (shown, ["first"])):
            eventually(lambda job=job: api.store.get_job("ours", job).finished_at is not None)  # type: ignore[misc]
            result = api.store.get_job("ours", job).result
            assert [each["custom_id"] for each in answers(api, result["output_file"])] == asked
        (bad,) = answers(api, result["error_file"])
        assert bad["custom_id"] == "second" and bad["response"]["status_code"] == 404
        assert api.http.get(f"/v1/batches/{hidden}", headers=mine).status_code == 404
        assert api.http.get(f"/v1/batches/{shown}", headers=mine).status_code == 200
        listed = api.http.get("/v1/batches", headers=mine).json()["batches"]
        assert [each["id"] for each in listed] == [shown]
        refused = api.http.post("/v1/batches", json=body, headers={"authorization": f"Bearer {tuner}"})
        assert refused.status_code == 403 and "infer" in error_of(refused)["message"]
