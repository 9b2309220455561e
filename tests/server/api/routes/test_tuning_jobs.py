"""`/v1/tuning/jobs`: documents validated whole, tenants kept apart, quotas, and the states of a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.api.schemas.common import MAX_UNFINISHED_JOBS
from chorus_server.api.schemas.tuning import JobAnswer, JobPage
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal, Scope
from chorus_server.tuning.document.job import JobDocument
from prompts_store.jobs.jobs import MAX_SPEC_BYTES
from prompts_store.jobs.records import Job, Lease
from tests.server.api.api_harness import FINGERPRINT, ApiServer, error_of

OURS, THEIRS, TUNER = "canary-ours-0123456789", "canary-theirs-0123456789", "canary-tuner-0123456789"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    """Two tenants, and a key of the first that tunes and may not write prompts."""
    only = frozenset({Scope.TUNE, Scope.READ})
    keys = {
        OURS: Principal("ours", "us"),
        THEIRS: Principal("theirs", "them"),
        TUNER: Principal("ours", "tuner", only),
    }
    ring = KeyRing(keys, Principal("ours", "anonymous"))
    folder = tmp_path_factory.mktemp("jobs")
    with ApiServer(folder, vocabulary, keys=ring) as server:
        server.http.headers["authorization"] = f"Bearer {OURS}"
        yield server


@pytest.fixture(autouse=True)
def nothing_left(shared: ApiServer) -> Iterator[None]:
    """Jobs of one test do not count against the next one's quota."""
    yield
    for tenant in ("ours", "theirs"):
        for job in shared.store.list_jobs(tenant, "tuning", limit=500).items:
            if job.finished_at is None:
                shared.store.cancel_job(tenant, job.id)


@pytest.fixture(scope="module")
def file(shared: ApiServer) -> str:
    return upload(shared)


def upload(api: ApiServer, content: bytes = b"text\tlabel\ngood\tyes\nbad\tno\n") -> str:
    answer = api.http.post(
        "/v1/files",
        params={"name": "train.tsv"},
        content=content,
        headers={"content-type": "application/octet-stream"},
    )
    found: str = answer.json()["id"]
    return found


def document(file: str, **changes: Any) -> dict[str, Any]:
    return {
        "task": "sst2",
        "data": {"train": {"file": file}},
        "labels": ["no", "yes"],
        "recipe": {"prompt_length": 3, "steps": 10, "batch_size": 4},
    } | changes


def start(api: ApiServer, body: dict[str, Any], key: str = OURS) -> httpx2.Response:
    return api.http.post("/v1/tuning/jobs", json=body, headers={"authorization": f"Bearer {key}"})


def claimed(api: ApiServer) -> tuple[Job, Lease]:
    found = api.store.claim_job("tuning", "a runner", 60, FINGERPRINT)
    assert found is not None
    return found


def test_a_job_is_stored_with_everything_written_out(shared: ApiServer, file: str) -> None:
    answer = start(shared, document(file))
    assert answer.status_code == 201, answer.text
    job = answer.json()
    JobAnswer.model_validate(job)
    assert (job["status"], job["tasks"], job["created_by"], job["attempt"]) == (
        "queued",
        ["ours/sst2"],
        "us",
        0,
    )
    assert job["spec"]["base_fingerprint"] == FINGERPRINT
    assert job["spec"]["prompts"][0]["recipe"]["learning_rate"] == 0.3
    assert JobDocument.from_json(job["spec"]).to_json() == job["spec"]
    assert shared.http.get(f"/v1/tuning/jobs/{job['id']}").json() == job
    events = shared.http.get(f"/v1/tuning/jobs/{job['id']}/events", params={"follow": False}).json()["events"]
    assert [(event["seq"], event["kind"], event["data"]) for event in events] == [
        (1, "status", {"status": "queued"})
    ]
    assert shared.http.delete(f"/v1/files/{file}").status_code == 409


def test_a_sweep_is_stored_with_its_trials(shared: ApiServer, file: str) -> None:
    space: dict[str, Any] = {"learning_rate": {"low": 0.1, "high": 1, "points": 2}, "prompt_length": [3, 4]}
    answer = start(shared, document(file, seeds=2, sweep={"search": "halving", "eta": 4, "space": space}))
    assert answer.status_code == 201, answer.text
    job = answer.json()
    JobAnswer.model_validate(job)
    assert job["spec"]["sweep"]["trials"] == [
        {"learning_rate": rate, "prompt_length": length} for rate in (0.1, 1) for length in (3, 4)
    ]
    assert job["spec"]["sweep"]["rungs"] == [{"steps": 3, "trials": 4}, {"steps": 10, "trials": 1}]
    assert JobDocument.from_json(job["spec"]).to_json() == job["spec"]
    for wrong, field, code in (
        ({"prompt_length": [3, 4000]}, "sweep.space.prompt_length", "prompt_rows_exceeded"),
        ({"learning_rate": {"low": "a", "high": 1}}, "sweep.space.learning_rate.low", "invalid_input"),
        ({"learning_rte": [1]}, "sweep.space.learning_rte", "unknown_field"),
    ):
        refused = start(shared, document(file, sweep={"space": wrong}, recipe={"max_input_tokens": 8000}))
        assert (error_of(refused)["field"], error_of(refused)["code"]) == (field, code)


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no task": ({"task": None}, "missing_field", "task"),
    "no data": ({"data": None}, "missing_field", "data"),
    "no train": ({"data": {}}, "missing_field", "data.train"),
    "unknown field": ({"lables": ["a"]}, "unknown_field", "lables"),
    "unknown field within": ({"data": {"train": {"files": "x"}}}, "unknown_field", "data.train.files"),
    "a number for a text": ({"template": 3}, "invalid_input", "template"),
    "bad template": ({"template": "{a"}, "invalid_template", "template"),
    "knob out of range": ({"recipe": {"steps": 0}}, "invalid_input", "recipe.steps"),
    "unknown knob": ({"recipe": {"learning_rat": 1}}, "unknown_field", "recipe.learning_rat"),
    "longer than the server serves": ({"recipe": {"prompt_length": 400}}, "prompt_rows_exceeded",
                                      "recipe.prompt_length"),
    "a setting that no request could use": ({"settings": {"temperature": -1}}, "invalid_input",
                                            "settings.temperature"),
    "a target text that is no label": ({"target_texts": {"0": "maybe"}}, "unknown_label", "target_texts.0"),
    "another base": ({"base_fingerprint": "0" * 64}, "base_mismatch", "base_fingerprint"),
    "an ensemble of one": ({"ensemble": 1}, "invalid_input", "ensemble"),
    "an initial prompt that is not there": ({"initial_prompt": "absent"}, "unknown_task", "initial_prompt"),
    "a file that is not there": ({"data": {"train": {"file": "file-" + "0" * 24}}}, "unknown_file",
                                 "data.train.file"),
    "a file in a prompt that is not there": (
        {"prompts": [{}, {"data": {"train": {"file": "file-" + "0" * 24}}}]}, "unknown_file",
        "prompts.1.data.train.file"),
    "in a prompt": ({"prompts": [{}, {"recipe": {"learning_rate": -1}}]}, "invalid_input",
                    "prompts.1.recipe.learning_rate"),
    "beside the prompts": ({"prompts": [{}, {}], "recipe": {"prompt_length": 400}}, "prompt_rows_exceeded",
                           "recipe.prompt_length"),
}  # fmt: skip
REFUSED |= {
    f"the URL {url!a}": ({"data": {"train": {"url": url}}}, "invalid_input", "data.train.url")
    for url in (
        "https://example.org/a\tb.tsv", "https://example.org/\na.tsv", "\rhttps://example.org/a",
        "https:// example.org/a",
        "https://example.org/a b", "https://example.org/\u00e4", "https://ex\u00e4mple.org/a", "https://example.org\\@b/a",
        "https://user:word@example.org/a", "https://user@example.org/a", "https:///a", "https://", "https://:443/a",
        "https://example.org:x/a", "https://example.org:99999/a", "https://[::1/a", "HTTPS:/example.org/a", "ftp://example.org/a",
    )
}  # fmt: skip
REFUSED["the URL of a second prompt"] = (
    {"prompts": [{}, {"data": {"train": {"url": "https://example.org/\t"}}}]},
    "invalid_input",
    "prompts.1.data.train.url",
)


@pytest.mark.parametrize("what", REFUSED)
def test_a_document_that_is_refused_is_not_stored(shared: ApiServer, file: str, what: str) -> None:
    changes, code, field = REFUSED[what]
    before = shared.http.get("/v1/tuning/jobs").json()
    answer = start(shared, document(file, **changes))
    error = error_of(answer)
    assert (error["code"], error["field"]) == (code, field), error
    assert answer.status_code == (
        404 if code.startswith("unknown_") and code in ("unknown_file", "unknown_task") else 400
    )
    assert shared.http.get("/v1/tuning/jobs").json() == before


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(field=st.sampled_from(sorted(JobDocument.model_fields)), value=VALUES)
def test_any_value_in_any_field_is_answered_without_a_5xx(
    shared: ApiServer, file: str, field: str, value: Any
) -> None:
    answer = shared.http.post(
        "/v1/tuning/jobs",
        content=json.dumps(document(file, **{field: value})),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code in (201, 400, 404, 429), answer.text
    if answer.status_code != 201:
        error_of(answer)


def test_a_document_that_is_too_large_to_keep_is_refused(shared: ApiServer, file: str) -> None:
    texts = {f"{n}": "no" for n in range(500)}
    prompts = [{"task": f"t{n}", "target_texts": texts} for n in range(64)]
    answer = start(shared, document(file, prompts=prompts))
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert error["field"] == "body" and str(MAX_SPEC_BYTES) in error["message"]
    del prompts[32:]
    assert start(shared, document(file, prompts=prompts)).status_code == 201


def test_paths_and_urls_need_the_operators_leave(
    shared: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.tsv").write_text("text\tlabel\n")
    source = {"path": str(tmp_path / "train.tsv")}
    refused = start(shared, document("", data={"train": source}))
    error = error_of(refused)
    assert (refused.status_code, error["code"], error["field"]) == (
        400,
        "data_not_allowed",
        "data.train.path",
    )
    other = error_of(start(shared, document("", data={"train": {"url": "https://example.org/a.tsv"}})))
    assert (other["code"], other["field"]) == ("data_not_allowed", "data.train.url")
    allowed = shared.settings.model_copy(
        update={"tuning_data_paths": (tmp_path,), "tuning_data_urls": ("https://example.org/",)}
    )
    monkeypatch.setattr(shared.services, "settings", allowed)
    assert start(shared, document("", data={"train": source})).status_code == 201
    absent = error_of(start(shared, document("", data={"train": {"path": str(tmp_path / "no.tsv")}})))
    assert absent["code"] == "data_not_allowed"
    url = {"url": "https://example.org/a.tsv"}
    assert start(shared, document("", data={"train": url})).status_code == 201


def test_an_initial_prompt_is_pinned(shared: ApiServer, file: str) -> None:
    shared.push("start", rows=3, seed=1)
    job = start(shared, document(file, initial_prompt="start")).json()
    assert job["spec"]["prompts"][0]["initial_prompt"] == "ours/start@1"
    assert job["spec"]["prompts"][0]["recipe"]["initialiser"] == "existing_prompt"
    shared.push("longer", rows=4, seed=1)
    refused = error_of(start(shared, document(file, initial_prompt="longer")))
    assert refused["field"] == "initial_prompt" and "prompt_length of 4" in refused["message"]
    foreign = error_of(start(shared, document(file, initial_prompt="theirs/start")))
    absent = error_of(start(shared, document(file, initial_prompt="theirs/absent")))
    foreign["message"] = foreign["message"].replace("theirs/start", "theirs/absent")
    assert {**foreign, "request_id": ""} == {**absent, "request_id": ""}


def test_a_key_that_only_tunes_promotes_nothing(shared: ApiServer, file: str) -> None:
    refused = start(shared, document(file, promote=True), TUNER)
    assert (refused.status_code, error_of(refused)["field"]) == (403, "promote")
    assert start(shared, document(file), TUNER).status_code == 201
    assert start(shared, document(file, promote=True)).status_code == 201


def test_too_many_unfinished_jobs_are_a_429(shared: ApiServer, file: str) -> None:
    jobs = [start(shared, document(file)).json()["id"] for _ in range(MAX_UNFINISHED_JOBS)]
    refused = start(shared, document(file))
    assert (refused.status_code, error_of(refused)["code"]) == (429, "too_many_jobs")
    assert int(refused.headers["retry-after"]) >= 30
    theirs = {"authorization": f"Bearer {THEIRS}"}
    uploaded = shared.http.post(
        "/v1/files", files={"file": ("a.tsv", b"text\tlabel\n")}, headers=theirs
    ).json()
    assert start(shared, document(uploaded["id"]), THEIRS).status_code == 201
    assert shared.http.post(f"/v1/tuning/jobs/{jobs[0]}/cancel").status_code == 200
    assert start(shared, document(file)).status_code == 201
    again = shared.http.post(f"/v1/tuning/jobs/{jobs[0]}/resume")
    assert (again.status_code, error_of(again)["code"]) == (429, "too_many_jobs")


def test_lists_by_status_in_pages(shared: ApiServer, file: str) -> None:
    ids = [start(shared, document(file)).json()["id"] for _ in range(3)]
    shared.http.post(f"/v1/tuning/jobs/{ids[1]}/cancel")
    page = shared.http.get("/v1/tuning/jobs", params={"status": "queued", "limit": 1}).json()
    JobPage.model_validate(page)
    assert [job["id"] for job in page["jobs"]] == [ids[2]]
    rest = shared.http.get(
        "/v1/tuning/jobs", params={"status": "queued", "cursor": page["next_cursor"]}
    ).json()
    assert [job["id"] for job in rest["jobs"]] == [ids[0]] and rest["next_cursor"] is None
    assert ids[1] in [job["id"] for job in shared.http.get("/v1/tuning/jobs?status=cancelled").json()["jobs"]]
    assert "spec" not in page["jobs"][0]
    assert shared.http.get("/v1/tuning/jobs?status=sleeping").status_code == 400


def test_cancel_and_resume(shared: ApiServer, file: str) -> None:
    job = start(shared, document(file)).json()["id"]
    steps = (
        ("resume", 409, "job_not_stopped"),
        ("cancel", 200, None),
        ("cancel", 409, "job_over"),
        ("resume", 200, None),
    )
    for verb, status, code in steps:
        answer = shared.http.post(f"/v1/tuning/jobs/{job}/{verb}")
        assert answer.status_code == status
        assert code is None or error_of(answer)["code"] == code
    assert shared.http.get(f"/v1/tuning/jobs/{job}").json()["status"] == "queued"
    taken, lease = claimed(shared)
    assert taken.id == job
    asked = shared.http.post(f"/v1/tuning/jobs/{job}/cancel").json()
    assert (asked["status"], asked["cancel_requested"]) == ("preparing", True)
    assert shared.store.update_job(lease).cancel_requested
    shared.store.finish_job(lease, "cancelled")
    assert shared.http.get(f"/v1/tuning/jobs/{job}").json()["status"] == "cancelled"


def test_a_failed_job_says_why_and_a_finished_one_what_it_made(shared: ApiServer, file: str) -> None:
    start(shared, document(file))
    job, lease = claimed(shared)
    shared.store.update_job(lease, status="running", progress={"step": 3})
    shared.store.finish_job(lease, "failed", error={"code": "missing_column", "message": "Row 1 lacks it."})
    shown = shared.http.get(f"/v1/tuning/jobs/{job.id}").json()
    JobAnswer.model_validate(shown)
    assert shown["error"] == {"code": "missing_column", "message": "Row 1 lacks it."}
    assert (shown["progress"], shown["attempt"]) == ({"step": 3}, 1)
    shared.http.post(f"/v1/tuning/jobs/{job.id}/resume")
    _, lease = claimed(shared)
    result = {"versions": [{"task": "ours/sst2", "version": 1}]}
    shared.store.finish_job(lease, "succeeded", result=result)
    shown = shared.http.get(f"/v1/tuning/jobs/{job.id}").json()
    assert (shown["status"], shown["error"], shown["result"]) == ("succeeded", None, result)


PATHS = [
    ("GET", ""),
    ("POST", "/cancel"),
    ("POST", "/resume"),
    ("GET", "/events"),
    ("GET", "/events?follow=false"),
]


@pytest.mark.parametrize(("method", "rest"), PATHS)
def test_another_tenants_job_answers_as_one_that_is_not_there(
    shared: ApiServer, file: str, method: str, rest: str
) -> None:
    job = start(shared, document(file)).json()["id"]
    absent = job[:-1] + ("0" if job[-1] != "0" else "1")
    theirs = {"authorization": f"Bearer {THEIRS}"}
    foreign = shared.http.request(method, f"/v1/tuning/jobs/{job}{rest}", headers=theirs)
    missing = shared.http.request(method, f"/v1/tuning/jobs/{absent}{rest}", headers=theirs)
    assert foreign.status_code == missing.status_code == 404
    told, expected = error_of(foreign), error_of(missing)
    assert told["message"].replace(job, absent) == expected["message"]
    assert (told["code"], told["field"]) == (expected["code"], expected["field"]) == ("unknown_job", "job")
    assert job not in shared.http.get("/v1/tuning/jobs", headers=theirs).text
    assert shared.http.get(f"/v1/tuning/jobs/{job}").json()["status"] == "queued"


def test_another_tenants_file_in_a_document_answers_as_one_that_is_not_there(
    shared: ApiServer, file: str
) -> None:
    absent = file[:-1] + ("0" if file[-1] != "0" else "1")
    told, expected = (error_of(start(shared, document(named), THEIRS)) for named in (file, absent))
    assert told["message"].replace(file, absent) == expected["message"]
    assert (told["code"], told["field"]) == (expected["code"], expected["field"]) == (
        "unknown_file", "data.train.file")  # fmt: skip


def test_before_the_model_is_loaded_jobs_wait_outside(shared: ApiServer, file: str) -> None:
    serving, shared.services.serving = shared.services.serving, None
    try:
        refused = start(shared, document(file))
        assert (refused.status_code, error_of(refused)["code"]) == (503, "not_ready")
        assert shared.http.get("/v1/tuning/jobs").status_code == 200
    finally:
        shared.services.serving = serving
