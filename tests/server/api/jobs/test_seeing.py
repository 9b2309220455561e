"""Files against keys that may name some tasks only: every kind of file by every route that names one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import pytest

from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from prompts_store.store import PromptStore
from tests.server.api.api_harness import ApiServer, error_of

RAW = {"content-type": "application/octet-stream"}
ROWS = b"text\tlabel\ngood\tyes\nbad\tno\n"
LABELS = ["no", "yes"]
KEYS: Mapping[str, tuple[str, ...] | None] = {
    "all": None,
    "ours": ("our-*",),
    "theirs": ("their-*",),
    "same-as-theirs": ("their-*",),
}
NAME = "app"
"""Of each of them: who sees what goes by keys, not by their names."""
ABSENT = "file-" + "0" * 24
MADE = ("mistakes", "predictions", "output", "errors")


def secret(name: str) -> str:
    return f"canary-{name}-0123456789"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    keys = {
        secret(name): Principal("default", NAME, key=f"key-{name}", tasks=tasks)
        for name, tasks in KEYS.items()
    }
    ring = KeyRing(keys, Principal("default", "anonymous"))
    with ApiServer(tmp_path_factory.mktemp("seeing"), vocabulary, keys=ring) as server:
        server.http.headers["authorization"] = f"Bearer {secret('all')}"
        for task in ("our-task", "their-task"):
            server.push(task, labels=LABELS, template="{text}")
        yield server


def send(api: ApiServer, key: str, method: str, path: str, body: Any = None, **more: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {secret(key)}"} | more.pop("headers", {})
    return api.http.request(method, path, headers=headers, **({} if body is None else {"json": body}), **more)


def upload(api: ApiServer, key: str, name: str = "rows.tsv", purpose: str | None = None) -> str:
    if purpose is None:
        answer = send(api, key, "POST", f"/v1/files?name={name}", content=ROWS, headers=RAW)
    else:
        form = {"files": {"file": (name, ROWS)}, "data": {"purpose": purpose}}
        answer = send(api, key, "POST", "/openai/v1/files", **form)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


def tuning(task: str, **data: str) -> dict[str, Any]:
    recipe = {"prompt_length": 3, "steps": 10, "batch_size": 4}
    sources = {name: {"file": file} for name, file in data.items()}
    return {"task": task, "data": sources, "labels": LABELS, "recipe": recipe}


def started(api: ApiServer, key: str, path: str, body: dict[str, Any]) -> str:
    answer = send(api, key, "POST", path, body)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


def made_by(store: PromptStore, job: str, kind: str) -> str:
    """A file as a job makes it."""
    name = f"{job}-{kind}.jsonl"
    with store.write_file("default", name, created_by=NAME, made_by=job, max_bytes=1000) as writer:
        writer.write(b"{}\n")
        return writer.commit().id


@pytest.fixture(scope="module")
def theirs(api: ApiServer) -> dict[str, str]:
    """A file of each kind that has rows of `their-task`, or may have."""
    by = {"validation": "theirs", "examples": "all"}
    files = {
        kind: upload(api, by.get(kind, "all"))
        for kind in ("train", "validation", "evaluated", "examples", "calibrated", "asked")
    }
    files["not read yet"] = upload(api, "all")
    files["theirs, not read yet"] = upload(api, "theirs")
    evaluation = {
        "subjects": [{"task": "their-task"}, {"base": {"few_shot": 1}}],
        "file": files["evaluated"], "examples": files["examples"], "labels": LABELS,
    }  # fmt: skip
    body = tuning("their-task", train=files["train"], validation=files["validation"])
    jobs = [
        started(api, "all", "/v1/tuning/jobs", body),
        started(api, "all", "/v1/evaluations", evaluation),
        started(api, "theirs", "/v1/batches", {"file": upload(api, "theirs"), "endpoint": "/v1/classify"}),
        started(api, "all", "/v1/batches", {"file": files["asked"], "endpoint": "/v1/classify"}),
    ]
    path = "/v1/tasks/their-task/versions/1/calibrations"
    started(api, "all", path, {"file": files["calibrated"], "labels": LABELS})
    only_base = {"subjects": [{"base": {}}], "file": files["not read yet"], "labels": LABELS}
    jobs.append(started(api, "all", "/v1/evaluations", only_base))
    names = [*MADE, "base-predictions"]
    return files | {name: made_by(api.store, job, name) for name, job in zip(names, jobs, strict=True)}


def requests_for(file: str, own: str) -> list[tuple[str, str, Any]]:
    """Every way to name a file."""
    return [
        ("GET", f"/v1/files/{file}", None),
        ("GET", f"/v1/files/{file}/content", None),
        ("DELETE", f"/v1/files/{file}", None),
        ("GET", f"/openai/v1/files/{file}", None),
        ("GET", f"/openai/v1/files/{file}/content", None),
        ("DELETE", f"/openai/v1/files/{file}", None),
        ("POST", "/v1/tuning/jobs", tuning("our-task", train=file)),
        ("POST", "/v1/tuning/jobs", tuning("our-task", train=own, validation=file)),
        ("POST", "/v1/fine_tuning/jobs", {"model": "our-task", "training_file": file}),
        (
            "POST",
            "/v1/fine_tuning/jobs",
            {"model": "our-task", "training_file": own, "validation_file": file},
        ),
        ("POST", "/v1/evaluations", {"subjects": [{"task": "our-task"}], "file": file}),
        (
            "POST",
            "/v1/evaluations",
            {"subjects": [{"base": {"few_shot": 1}}], "file": own, "examples": file, "labels": LABELS},
        ),
        ("POST", "/v1/tasks/our-task/versions/1/calibrations", {"file": file, "labels": LABELS}),
        ("POST", "/v1/batches", {"file": file, "endpoint": "/v1/classify"}),
        ("POST", "/openai/v1/batches", {"input_file_id": file, "endpoint": "/v1/classify"}),
    ]


def test_files_of_other_tasks_answer_like_files_that_are_not_there(
    api: ApiServer, theirs: dict[str, str]
) -> None:
    own = upload(api, "ours")
    for kind, file in theirs.items():
        for there, absent in zip(requests_for(file, own), requests_for(ABSENT, own), strict=True):
            said = [send(api, "ours", *asked) for asked in (there, absent)]
            assert [answer.status_code for answer in said] == [404, 404], (kind, there, said[0].text)
            errors = [error_of(answer) for answer in said]
            for error in errors:
                error.pop("request_id", None)
            assert str(errors[0]).replace(file, ABSENT) == str(errors[1]), (kind, there)
    listed = all_listed(api, "ours")
    assert listed == {own} and set(theirs.values()) <= all_listed(api, "all")


def all_listed(api: ApiServer, key: str) -> set[str]:
    """What the key's lists have, of both APIs, a few a page."""
    found, cursor = set(), ""
    while True:
        page = send(api, key, "GET", f"/v1/files?limit=3{cursor}").json()
        found |= {file["id"] for file in page["files"]}
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    same = send(api, key, "GET", "/openai/v1/files").json()
    assert {file["id"] for file in same["data"]} == found
    return found


SEEN_BY_THEM = {
    *("train", "validation", "evaluated", "examples", "calibrated", "theirs, not read yet"),
    *("mistakes", "predictions", "output"),
}


def test_a_key_for_their_task_sees_its_files(api: ApiServer, theirs: dict[str, str]) -> None:
    """Without this the test above would pass on a server that shows nobody anything."""
    for kind, file in theirs.items():
        for path in (f"/v1/files/{file}", f"/openai/v1/files/{file}/content"):
            answers = {key: send(api, key, "GET", path).status_code for key in ("theirs", "all")}
            assert answers == {"theirs": 200 if kind in SEEN_BY_THEM else 404, "all": 200}, kind
        # What nobody has read yet is for whoever uploaded it, what was read for all who may see the job.
        other = send(api, "same-as-theirs", "GET", f"/v1/files/{file}").status_code
        assert (other == 200) == (kind in SEEN_BY_THEM - {"theirs, not read yet"}), kind


def test_a_file_that_others_read_too_stays_with_whoever_began(api: ApiServer) -> None:
    file = upload(api, "ours")
    started(api, "ours", "/v1/tuning/jobs", tuning("our-new", train=file))
    started(api, "all", "/v1/tuning/jobs", tuning("their-new", train=file))
    assert [send(api, key, "GET", f"/v1/files/{file}").status_code for key in KEYS] == [200] * len(KEYS)


def test_a_name_like_that_of_a_jobs_file_gives_no_rights(api: ApiServer) -> None:
    """Names are the uploader's own."""
    job = started(api, "all", "/v1/tuning/jobs", tuning("their-other", train=upload(api, "all")))
    own = upload(api, "theirs", f"job-{'0' * 24}-mistakes.jsonl")
    assert [send(api, key, "GET", f"/v1/files/{own}").status_code for key in KEYS] == [200, 404, 200, 404]
    named = upload(api, "ours", f"{job}-mistakes.jsonl")
    assert [send(api, key, "GET", f"/v1/files/{named}").status_code for key in KEYS] == [200, 200, 404, 404]


def test_an_evaluation_of_the_base_alone_is_seen_by_its_key(api: ApiServer) -> None:
    body = {"subjects": [{"base": {}}], "file": upload(api, "theirs"), "labels": LABELS}
    job = started(api, "theirs", "/v1/evaluations", body)
    assert [send(api, key, "GET", f"/v1/jobs/{job}").status_code for key in KEYS] == [200, 404, 200, 404]
