"""OpenAI's files: the native ones, in OpenAI's fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from chorus_server.api.schemas.openai.files import DeletedFile, FileObject, FileObjects
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from tests.server.api.api_harness import FINGERPRINT, ApiServer, counted
from tests.server.api.openai.files_tools import FILES, push

OURS, THEIRS = "canary-ours-0123456789", "canary-theirs-0123456789"
MOST = 1 << 20


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    ring = KeyRing(
        {OURS: Principal("ours", "us"), THEIRS: Principal("theirs", "them")}, Principal("ours", "anonymous")
    )
    folder = tmp_path_factory.mktemp("files")
    with ApiServer(folder, vocabulary, keys=ring, tuning_max_file_bytes=MOST) as server:
        server.http.headers["authorization"] = f"Bearer {OURS}"
        yield server


@pytest.fixture(autouse=True)
def nothing_left(api: ApiServer) -> Iterator[None]:
    yield
    for tenant in ("ours", "theirs"):
        for file in api.store.list_files(tenant, limit=500).items:
            api.store.delete_file(tenant, file.id)


def _refused(api: ApiServer, status: int, parts: dict[str, str], content: bytes = b"a", **more: Any) -> Any:
    answer = push(api, parts, content, **more)
    assert answer.status_code == status, answer.text
    assert api.store.list_files("ours").items == ()
    return answer.json()["error"]


def test_a_file_is_the_native_one(api: ApiServer) -> None:
    accepted = counted(api, "chorus_files_accepted_total")
    answer = push(api, {"purpose": "batch"}, b'{"a": 1}\n')
    assert answer.status_code == 200, answer.text
    file = answer.json()
    FileObject.model_validate(file)
    assert (file["filename"], file["bytes"], file["purpose"]) == ("train.jsonl", 9, "batch")
    assert counted(api, "chorus_files_accepted_total") == accepted + 1
    assert api.http.get(f"{FILES}/{file['id']}").json() == file
    assert api.http.get(f"{FILES}/{file['id']}/content").content == b'{"a": 1}\n'
    native = api.http.get(f"/v1/files/{file['id']}").json()
    assert (native["name"], native["size_bytes"]) == ("train.jsonl", 9)


def test_a_native_file_is_training_data(api: ApiServer) -> None:
    headers = {"content-type": "application/octet-stream"}
    made = api.http.post("/v1/files", params={"name": "a.csv"}, content=b"a", headers=headers).json()
    assert api.http.get(f"{FILES}/{made['id']}").json()["purpose"] == "fine-tune"


def test_the_parts_may_come_after_the_file(api: ApiServer) -> None:
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\nabc\r\n'
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--x--\r\n'
    )
    answer = api.http.post(FILES, content=form, headers={"content-type": "multipart/form-data; boundary=x"})
    assert (answer.json()["purpose"], answer.json()["bytes"]) == ("user_data", 3)


def test_lists_by_purpose_and_order(api: ApiServer) -> None:
    purposes = ("fine-tune", "batch", "batch")
    made = [push(api, {"purpose": each}, b"{}\n" * n).json()["id"] for n, each in enumerate(purposes, 1)]

    def listed(**query: Any) -> tuple[list[str], bool]:
        body = api.http.get(FILES, params=query).json()
        FileObjects.model_validate(body)
        return [file["id"] for file in body["data"]], body["has_more"]

    assert listed() == (made[::-1], False)
    assert listed(order="asc") == (made, False)
    assert listed(purpose="batch") == (made[:0:-1], False)
    assert listed(purpose="vision") == ([], False)
    assert listed(limit=1, purpose="batch") == (made[2:], True)
    assert listed(limit=1, after=made[1], order="asc") == (made[2:], False)
    assert listed(limit=10_000, after=made[1]) == (made[:1], False)


@pytest.mark.parametrize(
    "query", [{"after": "x"}, {"after": "file-" + 24 * "0"}, {"limit": 0}, {"order": "up"}, {"next_year": 1}]
)
def test_lists_that_there_are_not(api: ApiServer, query: dict[str, Any]) -> None:
    answer = api.http.get(FILES, params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(query)))


def test_a_file_is_deleted_unless_a_job_needs_it(api: ApiServer) -> None:
    file = push(api, {"purpose": "fine-tune"}).json()["id"]
    spec = {"base_fingerprint": FINGERPRINT}
    job = api.store.create_job("ours", "tuning", spec, files={"data.train.file": file}).id
    answer = api.http.delete(f"{FILES}/{file}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "file_in_use")
    assert answer.headers["x-should-retry"] == "false"
    api.store.cancel_job("ours", job)
    DeletedFile.model_validate(gone := api.http.delete(f"{FILES}/{file}").json())
    assert gone == {"id": file, "object": "file", "deleted": True}
    assert api.http.get(f"{FILES}/{file}").json()["error"]["code"] == "unknown_file"


def test_another_tenant_s_file_is_not_there(api: ApiServer) -> None:
    theirs = push(api, {"purpose": "batch"}, authorization=f"Bearer {THEIRS}").json()["id"]
    for answer in (
        api.http.get(f"{FILES}/{theirs}"),
        api.http.get(f"{FILES}/{theirs}/content"),
        api.http.delete(f"{FILES}/{theirs}"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_file")
    assert api.http.get(FILES).json()["data"] == []


def test_what_is_refused_leaves_nothing(api: ApiServer) -> None:
    for parts in ({}, {"purpose": "vision"}, {"purpose": "batch_output"}):
        assert _refused(api, 400, parts)["param"] == "purpose"
    assert _refused(api, 400, {"purpose": 300 * "a"})["param"] == "purpose"
    expires = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    assert _refused(api, 400, {"purpose": "batch", **expires})["param"] == "expires_after"
    assert _refused(api, 400, {"purpose": "batch", "other": "a"})["code"] == "unknown_field"
    assert _refused(api, 400, {"purpose": "batch"}, b"")["code"] == "empty_file"
    assert _refused(api, 413, {"purpose": "batch"}, (MOST + 1) * b"a")["param"] == "file"
    raw = api.http.post(FILES, content=b"a", headers={"content-type": "application/octet-stream"})
    assert raw.status_code == 400 and api.store.list_files("ours").items == ()
