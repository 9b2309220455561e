"""`/v1/jobs`: jobs of every kind in one shape, and for whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from chorus_server.api.jobs.seeing import MAY_SEE
from chorus_server.api.schemas.jobs import AnyJobAnswer, AnyJobPage
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from prompts_store.jobs.records import KINDS, Job
from tests.server.api.api_harness import FINGERPRINT, ApiServer, error_of

ALL, NARROW = "canary-all-0123456789", "canary-narrow-0123456789"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    keys = {ALL: Principal("default", "all"), NARROW: Principal("default", "narrow", tasks=("other",))}
    ring = KeyRing(keys, Principal("default", "anonymous"))
    with ApiServer(tmp_path_factory.mktemp("jobs"), vocabulary, keys=ring) as server:
        server.http.headers["authorization"] = f"Bearer {ALL}"
        yield server


@pytest.fixture(scope="module")
def jobs(api: ApiServer) -> dict[str, str]:
    """One job of each kind, oldest first."""
    api.push("asked", labels=["no", "yes"], template="{text}")
    content = b"text\tlabel\ngood\tyes\nbad\tno\n"
    binary = {"content-type": "application/octet-stream"}
    sent = api.http.post("/v1/files", params={"name": "rows.tsv"}, content=content, headers=binary)
    file = sent.json()["id"]
    recipe = {"prompt_length": 3, "steps": 10, "batch_size": 4}
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "tuning": (
            "/v1/tuning/jobs",
            {"task": "new", "data": {"train": {"file": file}}, "labels": ["no", "yes"], "recipe": recipe},
        ),
        "evaluation": ("/v1/evaluations", {"subjects": [{"task": "asked"}], "file": file}),
        "calibration": ("/v1/tasks/asked/versions/1/calibrations", {"file": file}),
        "batch": ("/v1/batches", {"file": file, "endpoint": "/v1/classify"}),
    }
    made: dict[str, str] = {}
    for kind in KINDS:
        answer = api.post(*bodies[kind])
        assert answer.status_code == 201, answer.text
        made[kind] = answer.json()["id"]
    return made


def listed(api: ApiServer, query: str = "", key: str = ALL) -> list[str]:
    answer = api.http.get(f"/v1/jobs{query}", headers={"authorization": f"Bearer {key}"})
    AnyJobPage.model_validate(answer.json())
    return [job["id"] for job in answer.json()["jobs"]]


def test_every_kind_is_listed_newest_first(api: ApiServer, jobs: dict[str, str]) -> None:
    newest = list(jobs.values())[::-1]
    assert listed(api) == newest
    for kind, job in jobs.items():
        assert listed(api, f"?kind={kind}") == [job]
    assert listed(api, "?status=succeeded") == []
    found, cursor = [], ""
    while True:
        page = api.http.get(f"/v1/jobs?limit=1{cursor}").json()
        found += [job["id"] for job in page["jobs"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == newest
    refused = api.http.get("/v1/jobs?kind=cooking")
    assert (refused.status_code, error_of(refused)["field"]) == (400, "kind")


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_is_shown_followed_cancelled_and_resumed(
    api: ApiServer, jobs: dict[str, str], kind: str
) -> None:
    path = f"/v1/jobs/{jobs[kind]}"
    shown = api.http.get(path).json()
    AnyJobAnswer.model_validate(shown)
    assert (shown["kind"], shown["status"], shown["result"]) == (kind, "queued", {})
    assert "key" not in shown["spec"] and shown["spec"]["base_fingerprint"] == FINGERPRINT
    cancelled = api.http.post(f"{path}/cancel").json()
    assert cancelled["status"] == "cancelled"
    again = api.http.post(f"{path}/cancel")
    assert (again.status_code, error_of(again)["code"]) == (409, "job_over")
    assert api.http.post(f"{path}/resume").json()["status"] == "queued"
    events = api.http.get(f"{path}/events?follow=false").json()["events"]
    assert [event["data"]["status"] for event in events] == ["queued", "cancelled", "queued"]


def test_a_resumed_tuning_job_takes_its_steps_of_the_month(api: ApiServer, jobs: dict[str, str]) -> None:
    before = api.store.stored_use("default").training_steps
    path = f"/v1/jobs/{jobs['tuning']}"
    api.http.post(f"{path}/cancel")
    assert api.store.stored_use("default").training_steps < before
    api.http.post(f"{path}/resume")
    assert api.store.stored_use("default").training_steps == before


def test_a_key_for_other_tasks_sees_none(api: ApiServer, jobs: dict[str, str]) -> None:
    assert listed(api, key=NARROW) == []
    for job in jobs.values():
        for method, part in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/resume")):
            headers = {"authorization": f"Bearer {NARROW}"}
            answer = api.http.request(method, f"/v1/jobs/{job}{part}", headers=headers)
            assert (answer.status_code, error_of(answer)["code"]) == (404, "unknown_job")


def test_of_every_kind_it_is_said_who_may_see_it(api: ApiServer, jobs: dict[str, str]) -> None:
    assert set(MAY_SEE) == set(KINDS)
    for kind, job in jobs.items():
        found: Job = api.store.get_job("default", job)
        for principal, sees in (
            (Principal("default", "x"), True),
            (Principal("default", "y", tasks=()), False),
        ):
            assert MAY_SEE[found.kind](principal, found) is sees, kind
