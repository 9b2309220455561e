"""Memory for request bodies: one budget of the process, whatever arrives, and small bodies always get in."""

from __future__ import annotations

import random
import select
import socket
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from python_multipart.multipart import MultipartParser

from chorus_server.api.http.bodies import FREE_BYTES, BodyBudget, BodyShare
from chorus_server.api.http.multipart import Form
from chorus_server.api.tuning.uploads import BUFFER_BYTES
from chorus_server.errors import InvalidInputError
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from tests.server.api.api_harness import ApiServer, error_of, eventually

MIB = 1 << 20
LARGEST = 4 * MIB
SENT = LARGEST - MIB // 4
UPLOADS = 20
OURS, THEIRS = "canary-ours-0123456789", "canary-theirs-0123456789"


BODY = memoryview(b"x" * SENT)  # made once: what clients hold must not be measured


class Watched(BodyBudget):
    """Remembers the most that was held."""

    most = 0

    def take(self, tenant: str, count: int) -> None:
        super().take(tenant, count)
        self.most = max(self.most, self.held_bytes)


@pytest.fixture
def server(tmp_path: Path, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    keys = {OURS: Principal("ours", "us"), THEIRS: Principal("theirs", "them")}
    ring = KeyRing(keys, Principal("ours", "anonymous"))
    sizes = {"max_body_bytes": LARGEST, "max_upload_bytes": LARGEST}
    with ApiServer(tmp_path, vocabulary, keys=ring, **sizes) as server:
        server.http.headers["authorization"] = f"Bearer {OURS}"
        assert server.services.bodies.limit_bytes == 4 * LARGEST
        server.services.bodies = Watched(4 * LARGEST)
        try:
            yield server
        finally:
            for client in CLIENTS:
                client.close()
            CLIENTS.clear()
        eventually(lambda: server.services.bodies.held_bytes == 0)


CLIENTS: list[socket.socket] = []
FORM = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="p"\r\n\r\n'
KINDS = {
    "raw": ("/v1/tasks/t/versions", "application/octet-stream", b""),
    "form": ("/v1/tasks/t/versions", "multipart/form-data; boundary=edge", FORM),
    "json": ("/v1/generate", "application/json", b'{"task": null, "input": "'),
    "file": ("/v1/files?name=a.tsv", "application/octet-stream", b""),
}


def begin(api: ApiServer, kind: str, size: int) -> socket.socket:
    """A connection that has sent so many bytes of a body, and not the last; or was refused before that."""
    path, content_type, head = KINDS[kind]
    client = socket.create_connection(("127.0.0.1", api.port), timeout=300)
    CLIENTS.append(client)
    client.sendall(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OURS}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {size + 1}\r\n\r\n".encode()
        + head
    )
    try:
        client.sendall(BODY[: size - len(head)])
    except OSError:
        assert answered([client])
    return client


def answered(clients: list[socket.socket]) -> list[socket.socket]:
    """Those that have got an answer, or at least the end of the connection."""
    return select.select(clients, [], [], 0)[0]


def status(client: socket.socket) -> str | None:
    """None where the answer was lost because the client was still sending."""
    try:
        return client.recv(65_536).split(b" ")[1].decode()
    except (OSError, IndexError):
        return None


def unfinished(api: ApiServer) -> list[socket.socket]:
    """Uploads and requests that end one byte too early, all at once; those that were not refused."""
    clients = [begin(api, kind, SENT) for kind in ("raw", "form", "json") * (UPLOADS // 3)]

    def settled() -> bool:
        waiting = len(clients) - len(answered(clients))
        return api.services.bodies.held_bytes == waiting * (SENT - FREE_BYTES)

    eventually(settled)
    refused = answered(clients)
    assert {status(client) for client in refused} <= {"503", None}
    return [client for client in clients if client not in refused]


def test_unfinished_bodies_fill_the_budget_and_no_more(server: ApiServer) -> None:
    bodies = server.services.bodies
    assert isinstance(bodies, Watched)
    tracemalloc.start()
    waiting = unfinished(server)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(waiting) == 2
    assert 2 * (SENT - FREE_BYTES) <= bodies.most <= bodies.limit_bytes // 2
    assert peak < 1.5 * bodies.limit_bytes  # half of it, and some 500 KiB at each socket

    # What is small, or goes to the disk, still gets in; another tenant finds room, and the first one none.
    server.push("small")
    assert server.post("/v1/generate", {"task": "small", "input": "x"}).status_code == 200
    large: dict[str, Any] = {
        "content": b"x" * (3 * MIB),
        "headers": {"content-type": "application/octet-stream"},
    }
    assert server.http.post("/v1/files?name=a.tsv", **large).status_code == 201
    refused = server.http.post("/v1/tasks/t/versions", **large)
    assert (refused.status_code, error_of(refused)["code"]) == (503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    large["headers"] |= {"authorization": f"Bearer {THEIRS}"}
    assert server.http.post("/v1/tasks/t/versions", **large).status_code == 400  # read, and no prompt
    eventually(lambda: bodies.held_bytes == len(waiting) * (SENT - FREE_BYTES))

    # A body that ends well gives back its share as one does that is cut off.
    waiting[0].sendall(b"x")
    assert status(waiting[0]) == "400"
    eventually(lambda: bodies.held_bytes == (len(waiting) - 1) * (SENT - FREE_BYTES))
    for client in waiting:
        client.close()
    eventually(lambda: bodies.held_bytes == 0)


def test_without_a_budget_they_fill_the_memory(server: ApiServer) -> None:
    """The control of the test above."""
    server.services.bodies = BodyBudget(1 << 40)
    tracemalloc.start()
    waiting = unfinished(server)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(waiting) == UPLOADS // 3 * 3
    assert peak > len(waiting) * SENT


def files_at_once(server: ApiServer, budget: Watched) -> int:
    """The most that is held while data files come, each up to just before it would be written."""
    server.services.bodies = budget
    clients = [begin(server, "file", BUFFER_BYTES - 1) for _ in range(8)]
    for client in clients:
        client.sendall(b"x")
        assert status(client) == "201"
        client.close()
    assert budget.held_bytes == 0
    return budget.most


def test_data_files_gather_less_where_there_is_no_room(server: ApiServer) -> None:
    assert files_at_once(server, Watched(2 * MIB)) <= MIB
    control = Watched(1 << 40)
    assert files_at_once(server, control) > MIB


def test_a_form_may_not_have_endless_lines_around_its_file(server: ApiServer) -> None:
    """Sent in chunks it has no length to be refused for."""
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.tsv"\r\n\r\nx\r\n--edge--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=edge"}
    server.services.settings = server.settings.model_copy(update={"tuning_max_file_bytes": 1000})
    for lines, expected in ((1, 201), (70, 413)):
        chunks = iter([head, *[b"\r\n" * 512] * lines])
        assert server.http.post("/v1/files", content=chunks, headers=headers).status_code == expected


def test_metadata_of_a_form_is_small(server: ApiServer) -> None:
    for size, code in ((257 << 10, "too_large"), (100 << 10, "invalid_json")):
        parts: dict[str, Any] = {"files": {"file": ("p", b"x")}, "data": {"metadata": "x" * size}}
        answer = server.http.post("/v1/tasks/t/versions", **parts)
        assert (error_of(answer)["code"], error_of(answer)["field"]) == (code, "metadata")


def test_a_form_of_many_parts_costs_no_more_than_its_first_wrong_one() -> None:
    """Four times what arrives in one piece."""
    part = b"--edge\r\n" + b"a: b\r\n" * 7 + b"\r\n\r\n"
    body = part * (MIB // len(part))
    taken = []
    for _ in range(3):
        form = Form("multipart/form-data; boundary=edge", ("file",))
        began = time.thread_time()
        with pytest.raises(InvalidInputError):
            form.feed(body)
        taken.append(time.thread_time() - began)
    assert min(taken) < 0.05  # the least: a busy machine adds to some

    began = time.thread_time()
    MultipartParser(b"edge", {}).write(body)  # the control: to the end
    assert time.thread_time() - began > 0.05


def test_a_tenant_may_hold_as_much_as_it_leaves_free() -> None:
    budget = BodyBudget(1000 * FREE_BYTES)
    first, second, third = (BodyShare(budget, tenant) for tenant in "abc")
    assert first.grow(501 * FREE_BYTES) and not first.grow(1)
    assert not second.grow(252 * FREE_BYTES) and second.grow(251 * FREE_BYTES) and not second.grow(1)
    assert third.grow(126 * FREE_BYTES) and not third.grow(1)
    assert not BodyShare(budget, "a").grow(FREE_BYTES + 1) and BodyShare(budget, "a").grow(FREE_BYTES)
    first.release()
    assert third.grow(1)


def test_what_is_given_back_is_what_was_taken() -> None:
    """However shares grow, are refused and end, also twice."""
    draw = random.Random(0)
    budget = Watched(64 * FREE_BYTES)
    shares: list[BodyShare] = []
    refused = 0
    for _ in range(5000):
        if not shares or draw.random() < 0.2:
            shares.append(BodyShare(budget, draw.choice("abc")))
        refused += not draw.choice(shares).grow(draw.randrange(2 * FREE_BYTES))
        if draw.random() < 0.2:
            ended = shares.pop(draw.randrange(len(shares)))
            ended.release()
            ended.release()
        assert 0 <= budget.held_bytes <= budget.limit_bytes
    assert refused > 100
    assert budget.most > budget.limit_bytes // 2
    for share in shares:
        share.release()
    assert budget.held_bytes == 0 and not budget._tenants
