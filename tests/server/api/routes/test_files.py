"""`/v1/files`: uploads that stream, pages, deletion, and what each refusal leaves behind: nothing."""

from __future__ import annotations

import hashlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chorus_server.api.schemas.tuning import FileAnswer, FilePage
from chorus_server.api.tuning.uploads import BUFFER_BYTES
from chorus_server.errors import InternalError
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from prompts_store.testing import file_bytes
from tests.server.api.api_harness import FINGERPRINT, ApiServer, counted, error_of, eventually

BINARY = {"content-type": "application/octet-stream"}
MOST = 3 * BUFFER_BYTES
OURS, THEIRS = "canary-ours-0123456789", "canary-theirs-0123456789"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    """Two tenants; files of at most `MOST` bytes."""
    ring = KeyRing(
        {OURS: Principal("ours", "us"), THEIRS: Principal("theirs", "them")}, Principal("ours", "anonymous")
    )
    folder = tmp_path_factory.mktemp("files")
    with ApiServer(folder, vocabulary, keys=ring, tuning_max_file_bytes=MOST) as server:
        server.http.headers["authorization"] = f"Bearer {OURS}"
        yield server


def push(api: ApiServer, content: Any, name: str | None = "train.tsv", **headers: str) -> httpx2.Response:
    query = {} if name is None else {"name": name}
    return api.http.post("/v1/files", params=query, content=content, headers=BINARY | headers)


def bytes_on_disk(api: ApiServer) -> list[Path]:
    """Every file of content, kept or on its way."""
    folder = api.settings.data_dir / "files"
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_file_comes_in_raw_and_is_shown(shared: ApiServer) -> None:
    accepted = counted(shared, "chorus_files_accepted_total")
    answer = push(shared, b"a\tb\n1\t2\n")
    assert answer.status_code == 201, answer.text
    file = answer.json()
    FileAnswer.model_validate(file)
    assert (file["name"], file["size_bytes"], file["created_by"]) == ("train.tsv", 8, "us")
    assert file["sha256"] == hashlib.sha256(b"a\tb\n1\t2\n").hexdigest()
    assert shared.http.get(f"/v1/files/{file['id']}").json() == file
    assert file_bytes(shared.store, "ours", file["id"]) == b"a\tb\n1\t2\n"
    assert counted(shared, "chorus_files_accepted_total") == accepted + 1


def test_a_form_gives_the_same_file(shared: ApiServer) -> None:
    content = b"x\r\n" * 100_000
    raw = push(shared, content).json()
    form = shared.http.post("/v1/files", files={"file": ("größe 1.csv", content)})
    assert form.status_code == 201, form.text
    assert (form.json()["name"], form.json()["sha256"]) == ("größe 1.csv", raw["sha256"])
    named = shared.http.post("/v1/files", params={"name": "b.csv"}, files={"file": ("a.csv", content)})
    assert named.json()["name"] == "b.csv"


def test_a_large_file_reaches_the_store_in_pieces(shared: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from prompts_store.files.writing import FileWriter

    sizes: list[int] = []
    write = FileWriter.write
    monkeypatch.setattr(
        FileWriter, "write", lambda self, content: (sizes.append(len(content)), write(self, content))[1]
    )
    pieces = (bytes([n]) * 65_536 for n in range(MOST // 65_536))
    answer = push(shared, pieces)  # chunked: nobody says beforehand how much it is
    assert answer.status_code == 201, answer.text
    assert answer.json()["size_bytes"] == MOST == sum(sizes)
    assert len(sizes) >= 2 and max(sizes) < 2 * BUFFER_BYTES


REFUSED = {
    "empty": ({"content": b""}, 400, "empty_file", "file"),
    "no name": ({"name": None, "content": b"x"}, 400, "missing_field", "name"),
    "a path": ({"name": "../x.tsv", "content": b"x"}, 400, "invalid_file_name", "name"),
    "a NUL": ({"name": "a\0.tsv", "content": b"x"}, 400, "invalid_file_name", "name"),
    "too large, said": ({"content": b"x" * (MOST + 1)}, 413, "too_large", "file"),
    "JSON": ({"content": b"{}", "content-type": "application/json"}, 400, "unsupported_media_type",
             "content-type"),
    "no form": ({"content": b"x", "content-type": "multipart/form-data; boundary=a"}, 400, "invalid_input",
                "body"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_leaves_nothing(shared: ApiServer, what: str) -> None:
    sent, status, code, field = REFUSED[what]
    files, listed = bytes_on_disk(shared), shared.http.get("/v1/files").json()
    before = counted(shared, "chorus_files_refused_total", reason=code)
    answer = push(shared, **sent)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["field"]) == (status, code, field), answer.text
    assert status != 413 or str(MOST) in error["message"]
    assert bytes_on_disk(shared) == files
    assert shared.http.get("/v1/files").json() == listed
    assert counted(shared, "chorus_files_refused_total", reason=code) == before + 1


def begin(api: ApiServer, declared: int, sent: bytes, chunked: bool = False) -> socket.socket:
    """A connection that has sent part of an upload."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {declared}"
    client = socket.create_connection(("127.0.0.1", api.port), timeout=300)
    head = (
        "POST /v1/files?name=a.tsv HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
        f"Authorization: Bearer {OURS}\r\n{length}\r\n\r\n"
    )
    body = f"{len(sent):x}\r\n".encode() + sent + b"\r\n" if chunked else sent
    client.sendall(head.encode() + body)
    return client


def test_too_large_in_fact_is_a_413_with_the_limit(shared: ApiServer) -> None:
    files = bytes_on_disk(shared)
    client = begin(shared, 0, b"x" * (MOST + 1), chunked=True)
    answer = client.recv(65_536)
    while not answer.endswith(b"}}"):
        answer += client.recv(65_536)
    client.close()
    assert answer.startswith(b"HTTP/1.1 413") and str(MOST).encode() in answer
    assert bytes_on_disk(shared) == files


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_caller_who_leaves_in_the_middle_leaves_nothing(shared: ApiServer, reset: bool) -> None:
    files, listed = bytes_on_disk(shared), shared.http.get("/v1/files").json()
    left = counted(shared, "chorus_files_refused_total", reason="cancelled")
    client = begin(shared, MOST, b"x" * (BUFFER_BYTES + 1))
    eventually(lambda: len(bytes_on_disk(shared)) == len(files) + 1)  # it is being written
    if reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    eventually(lambda: counted(shared, "chorus_files_refused_total", reason="cancelled") == left + 1)
    assert bytes_on_disk(shared) == files
    assert shared.http.get("/v1/files").json() == listed


def test_the_control_stays_and_is_kept(shared: ApiServer) -> None:
    files = bytes_on_disk(shared)
    content = bytes(range(256)) * 4096 + b"the rest"
    client = begin(shared, len(content), content[:-8])
    eventually(lambda: len(bytes_on_disk(shared)) == len(files) + 1)
    client.sendall(content[-8:])
    assert client.recv(65_536).startswith(b"HTTP/1.1 201")
    client.close()
    assert len(bytes_on_disk(shared)) == len(files) + 1


def test_a_failing_disk_is_a_503_and_leaves_nothing(
    shared: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prompts_store.errors import StoreError
    from prompts_store.files.writing import FileWriter

    def full(self: FileWriter, content: bytes) -> None:
        raise StoreError("The disk is full; free some of it.")

    files = bytes_on_disk(shared)
    monkeypatch.setattr(FileWriter, "write", full)
    answer = push(shared, b"x" * 100)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "store_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert bytes_on_disk(shared) == files
    monkeypatch.undo()
    assert push(shared, b"x" * 100).status_code == 201


def test_a_defect_is_a_500_and_leaves_nothing(shared: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from prompts_store.files.writing import FileWriter

    def broken(self: FileWriter) -> None:
        raise RuntimeError("a defect")

    files = bytes_on_disk(shared)
    monkeypatch.setattr(FileWriter, "commit", broken)
    answer = push(shared, b"x" * 100)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, InternalError.default_code)
    assert bytes_on_disk(shared) == files


def test_pages_newest_first(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with ApiServer(tmp_path, vocabulary) as api:
        ids = [push(api, b"x", f"{n}.tsv").json()["id"] for n in range(5)]
        seen: list[str] = []
        cursor = None
        while True:
            query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = api.http.get("/v1/files", params=query).json()
            FilePage.model_validate(page)
            seen += [file["id"] for file in page["files"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == ids[::-1]
        bad = api.http.get("/v1/files", params={"cursor": "nonsense"})
        assert (bad.status_code, error_of(bad)["code"]) == (400, "invalid_cursor")


def test_a_deleted_file_is_gone_and_one_in_use_stays(shared: ApiServer) -> None:
    file = push(shared, b"x\n").json()["id"]
    assert shared.http.delete(f"/v1/files/{file}").status_code == 204
    for answer in (shared.http.get(f"/v1/files/{file}"), shared.http.delete(f"/v1/files/{file}")):
        assert (answer.status_code, error_of(answer)["code"]) == (404, "unknown_file")
    used = push(shared, b"y\n").json()["id"]
    job = shared.store.create_job("ours", "tuning", {"base_fingerprint": FINGERPRINT}, files={"f": used})
    refused = shared.http.delete(f"/v1/files/{used}")
    assert (refused.status_code, error_of(refused)["code"]) == (409, "file_in_use")
    shared.store.cancel_job("ours", job.id)
    assert shared.http.delete(f"/v1/files/{used}").status_code == 204


def test_another_tenants_file_answers_as_one_that_is_not_there(shared: ApiServer) -> None:
    file = push(shared, b"canary of ours\n", "canary-name.tsv").json()["id"]
    absent = file[:-1] + ("0" if file[-1] != "0" else "1")
    theirs = {"authorization": f"Bearer {THEIRS}"}
    for method in ("GET", "DELETE"):
        foreign = shared.http.request(method, f"/v1/files/{file}", headers=theirs)
        missing = shared.http.request(method, f"/v1/files/{absent}", headers=theirs)
        assert foreign.status_code == missing.status_code == 404
        told, expected = error_of(foreign), error_of(missing)
        assert told["message"].replace(file, absent) == expected["message"]
        assert (told["code"], told["field"]) == (expected["code"], expected["field"])
    assert "canary" not in shared.http.get("/v1/files", headers=theirs).text
    assert shared.http.get(f"/v1/files/{file}").status_code == 200
