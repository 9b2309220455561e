"""Tasks, versions, aliases, ensembles: the whole life of a prompt over HTTP."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest

from chorus_server.api.schemas.prompts import (
    AliasesAnswer,
    AliasMoveAnswer,
    EnsemblePage,
    EnsembleVersionPage,
    StoredEnsemble,
    TaskAnswer,
    TaskPage,
    VersionAnswer,
    VersionPage,
)
from prompts_store.artifacts import ArtifactLimits, read_artifact, write_artifact
from tests.faults.artifact_builders import VALUES, P, of_tasks
from tests.server.api.api_harness import FINGERPRINT, WIDTH, ApiServer, artifact, error_of, prompt

BINARY = {"content-type": "application/octet-stream"}
LIMITS = ArtifactLimits(width=WIDTH, max_length=64)


def get(api: ApiServer, path: str, **query: Any) -> Any:
    answer = api.http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def test_the_life_of_a_task(api: ApiServer) -> None:
    first = api.push("life", seed=1, labels=["no", "yes"], description="of a task")
    assert (first["version"], first["created"], first["aliases"]) == (1, True, ["live"])
    VersionAnswer.model_validate(first)
    again = api.push("life", seed=1, labels=["no", "yes"])
    assert (again["version"], again["created"]) == (1, False)
    second = api.push("life", seed=2, labels=["no", "yes"])
    assert (second["version"], second["aliases"]) == (2, [])
    task = get(api, "/v1/tasks/life")
    TaskAnswer.model_validate(task)
    assert (task["task"], task["versions"], task["aliases"]) == ("default/life", 2, {"live": 1})
    assert task["live"] == {"version": 1, "labels": first["labels"], "metrics": first["metrics"]}
    assert (task["last_move"]["alias"], task["last_move"]["previous"]) == ("live", None)
    assert task in get(api, "/v1/tasks", prefix="life")["tasks"]
    assert task["description"] == "of a task"

    moved = api.http.put("/v1/tasks/life/aliases/live", json={"version": 2}).json()
    AliasMoveAnswer.model_validate(moved)
    assert moved == {"alias": "live", "version": 2, "previous": 1}
    classified = api.post("/v1/classify", {"task": "life", "input": "x"}).json()["results"][0]
    assert classified["version"] == 2  # this process forgets what it had resolved at once
    back = api.post("/v1/tasks/life/rollback", {"alias": "live"}).json()
    assert back == {"alias": "live", "version": 1, "previous": 2}
    nothing = api.post("/v1/tasks/life/rollback", {})
    assert nothing.status_code == 409
    aliases = get(api, "/v1/tasks/life/aliases")
    AliasesAnswer.model_validate(aliases)
    assert [move["version"] for move in aliases["history"]] == [1, 2, 1]

    assert api.http.delete("/v1/tasks/life/versions/1").status_code == 409
    assert api.http.delete("/v1/tasks/life/versions/2").status_code == 204
    assert api.http.get("/v1/tasks/life/versions/2").status_code == 404
    assert api.push("life", seed=3)["version"] == 3
    assert api.http.delete("/v1/tasks/life").status_code == 204
    gone = api.http.get("/v1/tasks/life")
    assert (gone.status_code, error_of(gone)["code"]) == (404, "unknown_task")


def test_rollback_without_a_body_means_live(api: ApiServer) -> None:
    api.push("bare", seed=1)
    api.push("bare", seed=2)
    api.http.put("/v1/tasks/bare/aliases/live", json={"version": 2})
    answer = api.http.post("/v1/tasks/bare/rollback")
    assert (answer.status_code, answer.json()["version"]) == (200, 1)


def test_a_move_is_made_only_from_where_it_was_seen(api: ApiServer) -> None:
    for seed in (1, 2, 3):
        api.push("seen", seed=seed)
    path, live = "/v1/tasks/seen/aliases", "/v1/tasks/seen/aliases/live"
    assert get(api, path)["back"] == {}
    for number in (2, 3):
        answer = api.http.put(live, json={"version": number, "expected": number - 1})
        assert answer.status_code == 200, answer.text
    for method, where, body, field in (
        ("PUT", live, {"version": 1, "expected": 2}, "expected"),
        ("PUT", f"{path}/canary", {"version": 1, "expected": 3}, "expected"),
        ("POST", "/v1/tasks/seen/rollback", {"expected": 2}, "expected"),
        ("POST", "/v1/tasks/seen/rollback", {"version": 1, "expected": 3}, "version"),
    ):
        refused = api.http.request(method, where, json=body)
        error = error_of(refused)
        assert (refused.status_code, error["code"], error["field"]) == (409, "alias_moved", field)
    found = get(api, path, limit=1)
    assert (found["aliases"], found["back"]) == ({"live": 3}, {"live": 2})
    assert [move["version"] for move in found["history"]] == [3]
    assert api.post("/v1/tasks/seen/rollback", {"version": 2, "expected": 3}).json()["version"] == 2
    assert get(api, path)["back"] == {"live": 1}  # and not 3, which it named before


def test_aliases_come_and_go(api: ApiServer) -> None:
    api.push("alias")
    assert api.http.put("/v1/tasks/alias/aliases/canary", json={"version": 1}).status_code == 200
    assert get(api, "/v1/tasks/alias/versions/1")["aliases"] == ["canary", "live"]
    assert api.http.delete("/v1/tasks/alias/aliases/canary").status_code == 204
    missing = api.http.delete("/v1/tasks/alias/aliases/canary")
    assert (missing.status_code, error_of(missing)["code"]) == (404, "unknown_alias")
    bad = api.http.put("/v1/tasks/alias/aliases/1st", json={"version": 1})
    assert bad.status_code == 400
    absent = api.http.put("/v1/tasks/alias/aliases/canary", json={"version": 9})
    assert (absent.status_code, error_of(absent)["code"]) == (404, "unknown_version")


def test_lists_come_in_pages(api: ApiServer) -> None:
    names = [f"page-{index}" for index in range(5)]
    for index, name in enumerate(names):
        api.push(name, seed=index, labels=["page", "other"] if index % 2 else ["a", "b"])
    seen, cursor = [], None
    while True:
        query = {"limit": 2, "prefix": "page-"} | ({"cursor": cursor} if cursor else {})
        page = get(api, "/v1/tasks", **query)
        TaskPage.model_validate(page)
        seen += [task["task"] for task in page["tasks"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"default/{name}" for name in names]
    labelled = get(api, "/v1/tasks", label="page")["tasks"]
    assert [task["task"] for task in labelled] == ["default/page-1", "default/page-3"]
    for seed in range(1, 4):
        api.push("page-0", seed=100 + seed)
    page = get(api, "/v1/tasks/page-0/versions", limit=2)
    VersionPage.model_validate(page)
    rest = get(api, "/v1/tasks/page-0/versions", limit=2, cursor=page["next_cursor"])
    assert [version["version"] for version in page["versions"] + rest["versions"]] == [4, 3, 2, 1]
    for bad in ({"limit": 0}, {"limit": 501}, {"limit": "x"}, {"cursor": "x"}):
        answer = api.http.get("/v1/tasks", params=bad)
        assert answer.status_code == 400, bad
        assert error_of(answer)["field"] == next(iter(bad))


@pytest.mark.parametrize("format", ["safetensors", "npy", "peft"])
def test_what_was_uploaded_comes_back_bit_for_bit(api: ApiServer, format: Any) -> None:
    values = prompt(4, seed=7)
    body = write_artifact(values, format)
    made = api.http.post(f"/v1/tasks/round-{format}/versions", content=body, headers=BINARY)
    assert made.status_code == 201, made.text
    for other in ("safetensors", "npy", "peft"):
        answer = api.http.get(f"/v1/tasks/round-{format}/versions/1/artifact", params={"format": other})
        assert answer.status_code == 200
        assert answer.headers["etag"] == f'"{made.json()["digest"]}"'
        assert f"round-{format}-1." in answer.headers["content-disposition"]
        assert np.array_equal(read_artifact(answer.content, limits=LIMITS).values, values)
    refused = api.http.get(f"/v1/tasks/round-{format}/versions/1/artifact", params={"format": "torch"})
    assert (refused.status_code, error_of(refused)["field"]) == (400, "format")


def test_a_form_says_the_same_as_a_query(api: ApiServer) -> None:
    metadata = {
        "template": "review: {text}",
        "labels": ["no", "yes"],
        "settings": {"max_new_tokens": 4, "stop": ["."]},
        "base_fingerprint": FINGERPRINT,
        "lineage": {"job": "j-1", "nested": {"a": [1, 2]}},
        "metrics": {"accuracy": 0.75},
        "description": "from a form",
    }
    form = api.http.post(
        "/v1/tasks/form/versions",
        files={"file": ("p.npy", npy(prompt(3, 5).astype(np.float64)))},
        data={"metadata": json.dumps(metadata)},
    )
    assert form.status_code == 201, form.text
    made = form.json()
    for name in ("template", "labels", "settings", "base_fingerprint", "metrics"):
        assert made[name] == metadata[name]
    assert made["lineage"]["job"] == "j-1" and made["lineage"]["format"] == "npy"
    assert made["notes"] and made["created_by"] == "anonymous"
    baseless = api.push("baseless", rows=3)
    assert baseless["base_fingerprint"] == FINGERPRINT
    assert baseless["notes"] == ["The upload names no base model: recorded as the one that this server runs."]
    query = api.push(
        "form",
        rows=3,
        seed=5,
        template=metadata["template"],
        labels=metadata["labels"],
        settings=json.dumps(metadata["settings"]),
        base_fingerprint=FINGERPRINT,
    )
    assert (query["version"], query["created"]) == (1, False)


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter_config.json", b" " * (40 << 20))
        archive.writestr("adapter_model.safetensors", b"")
    return buffer.getvalue()


def zip_with_a_path() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../adapter_config.json", "{}")
    return buffer.getvalue()


def nan() -> Any:
    values = prompt()
    values[1, 2] = np.nan
    return values


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty_file"),
    "random bytes": (b"hello, this is no prompt", "unknown_format"),
    "wrong width": (npy(prompt(3, 0, WIDTH + 1)), "wrong_width"),
    "rank 1": (npy(prompt()[0]), "wrong_rank"),
    "rank 3": (npy(prompt()[None]), "wrong_rank"),
    "integers": (npy(np.ones((2, WIDTH), np.int32)), "wrong_dtype"),
    "nan": (npy(nan()), "not_finite"),
    "infinity": (npy(prompt() * np.float32(np.inf)), "not_finite"),
    "f64 beyond f32": (npy(np.full((2, WIDTH), 1e300)), "overflow"),
    "no rows": (npy(np.zeros((0, WIDTH), np.float32)), "empty_prompt"),
    "too long": (npy(prompt(63)), "too_long"),
    "4 TiB header": ((4 << 40).to_bytes(8, "little") + b"{}", "header_too_large"),
    "truncated": (artifact()[:-5], "truncated"),
    "pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.", "pickle"),
    "zip bomb": (bomb(), "zip_bomb"),
    "path in a zip": (zip_with_a_path(), "zip_path"),
    "gzip": (b"\x1f\x8b\x08\x00" + b"\0" * 20, "compressed"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_a_400_with_its_reason_and_stores_nothing(api: ApiServer, name: str) -> None:
    body, reason = BAD_FILES[name]
    before = sorted(path for path in (api.settings.data_dir / "blobs").rglob("*") if path.is_file())
    answer = api.http.post("/v1/tasks/refused/versions", content=body, headers=BINARY)
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert (error["code"], error["field"]) == (reason, "file")
    assert before == sorted(path for path in (api.settings.data_dir / "blobs").rglob("*") if path.is_file())
    assert api.http.get("/v1/tasks/refused").status_code == 404


def test_a_task_of_a_multitask_adapter_becomes_a_version(api: ApiServer) -> None:
    multitask = of_tasks(
        columns=np.ones((2, P, 1), np.float32),
        rows=np.stack([np.full((1, WIDTH), 2), np.full((1, WIDTH), 3)]).astype(np.float32),
        config={"num_tasks": 2, "num_ranks": 1},
    )
    path = "/v1/tasks/folded/versions"
    answer = api.http.post(path, content=multitask, headers=BINARY)
    assert (answer.status_code, error_of(answer)["code"], error_of(answer)["field"]) == (
        400, "peft_task", "file",
    )  # fmt: skip
    for index, factor in enumerate((2, 3)):
        answer = api.http.post(path, content=multitask, headers=BINARY, params={"task_index": index})
        assert answer.status_code == 201, answer.text
        assert (answer.json()["lineage"]["task_index"], answer.json()["version"]) == (index, index + 1)
        stored = api.http.get(f"{path}/{index + 1}/artifact", params={"format": "npy"}).content
        assert np.load(io.BytesIO(stored)).tobytes() == (VALUES * np.float32(factor)).tobytes()


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"template": "{"}, "template"),
        ({"template": "no field"}, "template"),
        ({"template": "{text.__class__}"}, "template"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"settings": {"temperature": -1}}, "settings.temperature"),
        ({"settings": {"stream": True}}, "settings.stream"),
        ({"settings": {"num_beams": 2, "temperature": 1}}, "settings.temperature"),
        ({"metrics": {"accuracy": "high"}}, "metrics.accuracy"),
        ({"lineage": [1]}, "lineage"),
        ({"base_fingerprint": "0" * 64}, "base_fingerprint"),
        ({"task_index": 0}, "task_index"),
        ({"task_index": -1}, "task_index"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_metadata_is_named_in_query_and_form(
    api: ApiServer, metadata: dict[str, Any], field: str
) -> None:
    form = api.http.post(
        "/v1/tasks/unsaid/versions",
        files={"file": ("p", artifact())},
        data={"metadata": json.dumps(metadata)},
    )
    assert form.status_code == 400, form.text
    said = error_of(form)["field"]
    assert said.removeprefix("metadata.").startswith(field.split(".")[0]), said
    assert said.removeprefix("metadata.") in (field, f"{field}.1")
    assert api.http.get("/v1/tasks/unsaid").status_code == 404


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"files": {"prompt": ("p", b"x")}}, "body"),
        ({"files": {"other": ("p", b"x")}, "data": {"metadata": "{}"}}, "body"),
        ({"files": [("file", ("p", b"x")), ("file", ("q", b"y"))]}, "file"),
        ({"files": {"file": ("p", artifact())}, "data": {"metadata": "{"}}, "metadata"),
        ({"files": {"file": ("p", artifact())}, "data": {"metadata": '{"metrics": {"a": NaN}}'}}, "metadata"),
        ({"files": {"file": ("p", artifact())}, "params": {"template": "{text}"}}, "template"),
    ],
)
def test_a_bad_form_is_a_400(api: ApiServer, parts: dict[str, Any], field: str) -> None:
    answer = api.http.post("/v1/tasks/unsaid/versions", **parts)
    assert answer.status_code == 400, answer.text
    assert error_of(answer)["field"] == field


def test_a_form_that_is_none_is_a_400(api: ApiServer) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        answer = api.http.post(
            "/v1/tasks/unsaid/versions", content=b"--y\r\nnothing", headers={"content-type": kind}
        )
        assert answer.status_code == 400, answer.text
        error_of(answer)


def test_an_upload_over_the_limit_is_a_413(api: ApiServer) -> None:
    size = api.settings.max_upload_bytes + 1

    def chunks() -> Any:
        for _ in range(0, size + (1 << 20), 1 << 20):
            yield b"\0" * (1 << 20)

    answer = api.http.post("/v1/tasks/huge/versions", content=chunks(), headers=BINARY)
    assert answer.status_code == 413, answer.text
    assert api.http.get("/v1/tasks/huge").status_code == 404


@pytest.mark.parametrize("name", ["UPPER CASE", "a%00b", "..", "a" * 300, "%F0%9F%98%80", "-x"])
def test_a_name_that_is_none_is_refused(api: ApiServer, name: str) -> None:
    answer = api.http.post(f"/v1/tasks/{name}/versions", content=artifact(), headers=BINARY)
    assert answer.status_code in (400, 404, 405), answer.text
    error_of(answer)


def test_ensembles_are_stored_and_listed(api: ApiServer) -> None:
    for index in range(2):
        api.push(f"part-{index}", seed=index)
    body = {"tasks": ["part-0", "default/part-1@1"], "weights": [2, 1]}
    made = api.post("/v1/ensembles/pair/versions", body)
    assert made.status_code == 201, made.text
    StoredEnsemble.model_validate(made.json())
    assert api.post("/v1/ensembles/pair/versions", body).status_code == 200
    other = api.post("/v1/ensembles/pair/versions", {"tasks": ["part-1"]})
    assert (other.status_code, other.json()["version"]) == (201, 2)
    assert get(api, "/v1/ensembles/pair")["version"] == 2
    assert get(api, "/v1/ensembles/pair", version=1)["members"] == made.json()["members"]
    assert get(api, "/v1/ensembles/pair", alias="live")["version"] == 1
    versions = get(api, "/v1/ensembles/pair/versions", limit=1)
    EnsembleVersionPage.model_validate(versions)
    assert versions["versions"][0]["members"] == other.json()["members"]
    rest = get(api, "/v1/ensembles/pair/versions", cursor=versions["next_cursor"])
    assert [each["version"] for each in rest["versions"]] == [1] and rest["next_cursor"] is None
    moved = api.http.put("/v1/ensembles/pair/aliases/live", json={"version": 2, "expected": 1})
    assert moved.json() == {"alias": "live", "version": 2, "previous": 1}
    late = api.http.put("/v1/ensembles/pair/aliases/live", json={"version": 1, "expected": 1})
    assert (late.status_code, error_of(late)["code"]) == (409, "alias_moved")
    assert get(api, "/v1/ensembles/pair")["back"] == {"live": 1}
    aliases = get(api, "/v1/ensembles/pair/aliases", limit=1)
    AliasesAnswer.model_validate(aliases)
    assert (aliases["aliases"], aliases["back"], len(aliases["history"])) == ({"live": 2}, {"live": 1}, 1)
    assert api.post("/v1/ensembles/pair/rollback", {"version": 1, "expected": 2}).json()["version"] == 1
    nothing = api.post("/v1/ensembles/pair/rollback", {})
    assert (nothing.status_code, error_of(nothing)["code"]) == (409, "conflict")
    api.http.put("/v1/ensembles/pair/aliases/next", json={"version": 2})
    assert api.http.delete("/v1/ensembles/pair/aliases/next").status_code == 204
    history = get(api, "/v1/ensembles/pair/aliases")["history"]
    assert [move["version"] for move in history] == [1, 2, 1, 2, None]
    page = get(api, "/v1/ensembles", prefix="pa")
    EnsemblePage.model_validate(page)
    assert [ensemble["ensemble"] for ensemble in page["ensembles"]] == ["default/pair"]
    held = api.http.delete("/v1/tasks/part-0/versions/1")
    assert held.status_code == 409
    assert api.http.delete("/v1/ensembles/pair").status_code == 204
    gone = api.http.get("/v1/ensembles/pair")
    assert (gone.status_code, error_of(gone)["code"]) == (404, "unknown_ensemble")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"tasks": ["absent"]}, 404, "tasks.0"),
        ({"tasks": []}, 400, "tasks"),
        ({"tasks": ["lone"], "weights": [1, 2]}, 400, "weights"),
        ({"tasks": ["lone"], "vote": "mean"}, 400, "vote"),
        ({"tasks": ["lone"] * 65}, 400, "tasks"),
    ],
)
def test_a_bad_ensemble_is_named(api: ApiServer, body: dict[str, Any], status: int, field: str) -> None:
    api.push("lone")
    answer = api.post("/v1/ensembles/bad/versions", body)
    assert answer.status_code == status, answer.text
    assert error_of(answer)["field"] == field


CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/tasks/owned/versions", {"content": artifact(3, 2), "headers": BINARY}),
    ("POST", "/v1/tasks/owned/versions", {"files": {"file": ("p", artifact(3, 3))}}),
    ("PUT", "/v1/tasks/owned/aliases/live", {"json": {"version": 2}}),
    ("PUT", "/v1/tasks/owned/aliases/canary", {"json": {"version": 1}}),
    ("POST", "/v1/tasks/owned/rollback", {"json": {"alias": "live"}}),
    ("DELETE", "/v1/tasks/owned/aliases/canary", {}),
    ("DELETE", "/v1/tasks/owned/versions/2", {}),
    ("POST", "/v1/ensembles/owned/versions", {"json": {"tasks": ["owned"]}}),
    ("DELETE", "/v1/ensembles/owned", {}),
    ("DELETE", "/v1/tasks/owned", {}),
]


def test_changes_take_the_tenant_when_it_is_the_keys_own(api: ApiServer) -> None:
    """In this order, each another tenant's first: it answers 404, and nothing changes before its turn."""
    api.push("owned", seed=1)
    for method, path, body in CHANGES:
        before = get(api, "/v1/tasks/owned"), get(api, "/v1/tasks/owned/aliases")
        refused = api.http.request(method, path, params={"tenant": "other"}, **body)
        assert (refused.status_code, error_of(refused)["field"]) == (
            404,
            "ensemble" if path.startswith("/v1/ensembles") else "task",
        ), (method, path)
        assert (get(api, "/v1/tasks/owned"), get(api, "/v1/tasks/owned/aliases")) == before
        done = api.http.request(method, path, params={"tenant": "default"}, **body)
        assert done.status_code in (200, 201, 204), (method, path, done.text)
    assert api.http.get("/v1/tasks/owned").status_code == 404


def test_another_tenant_answers_as_if_there_were_none(api: ApiServer) -> None:
    api.push("mine")
    assert get(api, "/v1/tasks/mine", tenant="default")["task"] == "default/mine"
    other = api.http.get("/v1/tasks/mine", params={"tenant": "other"})
    absent = api.http.get("/v1/tasks/nothing")
    assert other.status_code == absent.status_code == 404
    assert error_of(other)["code"] == error_of(absent)["code"] == "unknown_task"
