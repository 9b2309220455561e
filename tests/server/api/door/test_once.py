"""A request that comes again is answered with what it made, by each route that makes something once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import httpx2
import pytest

from chorus_server.api.door.once import REPLAYED, Once, OnceAMinute
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from prompts_store.tenants.limits import StoredAmounts, TenantLimits
from tests.server.api.api_harness import ApiServer, artifact, counted, error_of

OURS, COLLEAGUE, NARROW, THEIRS = (
    f"canary-{who}-0123456789" for who in ("ours", "colleague", "narrow", "theirs")
)
RAW = {"content-type": "application/octet-stream"}
ROWS = b"text\tlabel\ngood\tyes\nbad\tno\n"


def ring() -> KeyRing:
    keys = {
        OURS: Principal("ours", "us"),
        COLLEAGUE: Principal("ours", "a colleague"),
        NARROW: Principal("ours", "narrow", tasks=("other-*",)),
        THEIRS: Principal("theirs", "them"),
    }
    return KeyRing(keys, Principal("ours", "anonymous"))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    folder = tmp_path_factory.mktemp("once")
    with ApiServer(folder, vocabulary, keys=ring()) as server:
        many = TenantLimits.model_validate({"stored": {"unfinished_jobs": 500}})
        server.store.update_tenant("ours", limits=many)
        server.http.headers["authorization"] = f"Bearer {OURS}"
        yield server


@pytest.fixture(scope="module")
def file(api: ApiServer) -> str:
    """A file of rows; and `asked@1`, which can be evaluated and calibrated on it."""
    api.push("asked", labels=["no", "yes"], template="{text}", seed=99)
    found: str = upload(api, {}).json()["id"]
    return found


def upload(
    api: ApiServer, headers: dict[str, str], content: bytes = ROWS, name: str = "rows.tsv"
) -> httpx2.Response:
    return api.http.post("/v1/files", params={"name": name}, content=content, headers=RAW | headers)


def form(api: ApiServer, headers: dict[str, str], content: bytes = ROWS) -> httpx2.Response:
    """The boundary is another one each time."""
    return api.http.post("/v1/files", files={"file": ("form.tsv", content)}, headers=headers)


def version(api: ApiServer, headers: dict[str, str], seed: int = 1) -> httpx2.Response:
    return api.http.post("/v1/tasks/raw/versions", content=artifact(3, seed), headers=RAW | headers)


def version_form(api: ApiServer, headers: dict[str, str], template: str = "{text}") -> httpx2.Response:
    sent = {"file": ("p", artifact(3, 2))}
    metadata = {"metadata": json.dumps({"template": template})}
    return api.http.post("/v1/tasks/form/versions", files=sent, data=metadata, headers=headers)


def job(api: ApiServer, headers: dict[str, str], file: str, steps: int = 10) -> httpx2.Response:
    recipe = {"prompt_length": 3, "steps": steps, "batch_size": 4}
    body = {"task": "sst2", "data": {"train": {"file": file}}, "labels": ["no", "yes"], "recipe": recipe}
    return api.http.post("/v1/tuning/jobs", json=body, headers=headers)


def evaluation(api: ApiServer, headers: dict[str, str], file: str, seed: int = 0) -> httpx2.Response:
    body = {"subjects": [{"task": "asked@1"}], "file": file, "seed": seed}
    return api.http.post("/v1/evaluations", json=body, headers=headers)


def calibration(api: ApiServer, headers: dict[str, str], file: str, prior: bool = True) -> httpx2.Response:
    body = {"file": file, "prior": prior}
    return api.http.post("/v1/tasks/asked/versions/1/calibrations", json=body, headers=headers)


Send = Callable[..., httpx2.Response]
# Sends it; and sends what says something else.
ROUTES: dict[str, tuple[Send, Send]] = {
    "file": (
        lambda api, headers, _: upload(api, headers),
        lambda api, headers, _: upload(api, headers, b"x"),
    ),
    "named file": (
        lambda api, headers, _: upload(api, headers),
        lambda api, headers, _: upload(api, headers, name="other.tsv"),
    ),
    "form": (lambda api, headers, _: form(api, headers), lambda api, headers, _: form(api, headers, b"x")),
    "version": (
        lambda api, headers, _: version(api, headers),
        lambda api, headers, _: version(api, headers, 9),
    ),
    "version form": (
        lambda api, headers, _: version_form(api, headers),
        lambda api, headers, _: version_form(api, headers, "{other}"),
    ),
    "job": (job, lambda api, headers, file: job(api, headers, file, 11)),
    "evaluation": (evaluation, lambda api, headers, file: evaluation(api, headers, file, 1)),
    "calibration": (calibration, lambda api, headers, file: calibration(api, headers, file, False)),
}


def identity(answer: httpx2.Response) -> str:
    assert answer.status_code in (200, 201), answer.text
    body = answer.json()
    return str(body.get("id") or f"{body['task']}@{body['version']}")


@pytest.mark.parametrize("route", ROUTES)
def test_the_same_request_with_the_same_key_makes_one_thing(api: ApiServer, file: str, route: str) -> None:
    send, differ = ROUTES[route]
    key = {"idempotency-key": f"key of {route}"}
    first = send(api, key, file)
    told = len(api.store.audit_rows("ours", limit=500))
    again = send(api, key, file)
    assert identity(again) == identity(first)
    assert REPLAYED not in first.headers and again.headers[REPLAYED] == "true"
    assert again.status_code == (200 if "version" in route else 201)
    other = differ(api, key, file)
    error = error_of(other)
    assert (other.status_code, error["code"]) == (422, "idempotency_key_reused")
    assert error["field"] == "Idempotency-Key" and "a key of its own" in error["message"]
    assert len(api.store.audit_rows("ours", limit=500)) == told, "nothing was made, so nothing is told"
    if "version" not in route:  # control
        assert identity(send(api, {}, file)) != identity(send(api, {}, file)) != identity(first)


def test_one_key_for_two_routes_is_refused(api: ApiServer, file: str) -> None:
    key = {"idempotency-key": "for two"}
    assert upload(api, key).status_code == 201
    assert job(api, key, file).status_code == 422
    assert version(api, key).status_code == 422


def test_what_is_answered_is_what_is_there_by_then(api: ApiServer, file: str) -> None:
    key = {"idempotency-key": "it changes"}
    made = identity(job(api, key, file))
    assert api.http.post(f"/v1/tuning/jobs/{made}/cancel").status_code == 200
    again = job(api, key, file)
    assert (again.status_code, identity(again), again.json()["status"]) == (201, made, "cancelled")


@pytest.mark.parametrize(
    ("route", "path", "code"),
    [("file", "/v1/files/{}", "unknown_file"), ("version", "/v1/tasks/raw", "unknown_task")],
)
def test_what_was_deleted_is_not_made_again(
    api: ApiServer, file: str, route: str, path: str, code: str
) -> None:
    send, _ = ROUTES[route]
    key = {"idempotency-key": f"deleted {route}"}
    made = identity(send(api, key, file))
    assert api.http.delete(path.format(made)).status_code == 204
    again = send(api, key, file)
    assert (again.status_code, error_of(again)["code"]) == (404, code)
    assert "came before" in error_of(again)["message"]
    assert identity(send(api, {"idempotency-key": f"new {route}"}, file)) != made, "control"


def test_it_is_answered_though_it_could_not_be_made_any_more(api: ApiServer) -> None:
    api.push("fleeting", labels=["no", "yes"], template="{text}", seed=5)
    rows = upload(api, {}).json()["id"]
    body = {"subjects": [{"task": "fleeting@1"}], "file": rows}
    key = {"idempotency-key": "fleeting"}
    made = identity(api.http.post("/v1/evaluations", json=body, headers=key))
    api.http.post(f"/v1/evaluations/{made}/cancel")
    for path in (f"/v1/files/{rows}", "/v1/tasks/fleeting"):
        assert api.http.delete(path).status_code == 204
    assert identity(api.http.post("/v1/evaluations", json=body, headers=key)) == made
    assert api.http.post("/v1/evaluations", json=body).status_code == 404, "control"


def test_a_full_tenant_is_answered_with_what_filled_it(api: ApiServer) -> None:
    theirs = {"authorization": f"Bearer {THEIRS}"}
    most = StoredAmounts(file_bytes=len(ROWS), prompts=1)
    api.store.update_tenant("theirs", limits=TenantLimits(stored=most))
    for send in (upload, version):
        key = theirs | {"idempotency-key": f"fills {send.__name__}"}
        first = send(api, key)
        assert identity(send(api, key)) == identity(first)
        full = send(api, theirs, b"x") if send is upload else version_form(api, theirs)
        assert error_of(full)["code"] == "limit_exceeded", "control"


def test_a_key_is_its_tenants(api: ApiServer, file: str) -> None:
    key = {"idempotency-key": "shared"}
    made = identity(upload(api, key))
    assert identity(upload(api, key | {"authorization": f"Bearer {COLLEAGUE}"})) == made
    theirs = upload(api, key | {"authorization": f"Bearer {THEIRS}"}, b"t")
    assert theirs.status_code in (201, 429) and REPLAYED not in theirs.headers


def test_whoever_may_not_name_it_does_not_see_it(api: ApiServer, file: str) -> None:
    key = {"idempotency-key": "not for all"}
    made = identity(job(api, key, file))
    refused = job(api, key | {"authorization": f"Bearer {NARROW}"}, file)
    assert refused.status_code == 404 and made not in refused.text


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_has_1_to_255_characters(api: ApiServer, key: str) -> None:
    answer = upload(api, {"idempotency-key": key})
    assert (answer.status_code, error_of(answer)["field"]) == (400, "Idempotency-Key")
    assert upload(api, {"idempotency-key": "y" * 255}).status_code == 201


@pytest.mark.parametrize("key", ["at once", None], ids=["keyed", "control"])
def test_two_servers_that_get_it_at_once_make_one(
    tmp_path: Path, vocabulary: Vocabulary, key: str | None
) -> None:
    headers = {"authorization": f"Bearer {OURS}"} | ({"idempotency-key": key} if key else {})
    made: list[str] = []
    with (
        ApiServer(tmp_path, vocabulary, keys=ring()) as one,
        ApiServer(tmp_path, vocabulary, keys=ring()) as other,
    ):
        barrier = threading.Barrier(4)

        def send(api: ApiServer) -> None:
            barrier.wait(300)
            made.append(identity(upload(api, headers)))

        threads = [threading.Thread(target=send, args=(api,)) for api in (one, other) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        assert len(made) == 4 and len(set(made)) == (1 if key else 4)
        assert len(one.store.list_files("ours").items) == len(set(made))


def test_a_large_body_is_counted_as_it_comes(api: ApiServer) -> None:
    """Nothing more of it is held because it has a key."""
    held: list[int] = []

    def pieces() -> Iterator[bytes]:
        for _ in range(24):
            held.append(api.services.bodies.held_bytes)
            yield b"text\tlabel\n" * 40_000

    key = {"idempotency-key": "large"}
    first = api.http.post("/v1/files", params={"name": "a.tsv"}, content=pieces(), headers=RAW | key)
    again = api.http.post("/v1/files", params={"name": "a.tsv"}, content=pieces(), headers=RAW | key)
    assert identity(first) == identity(again) and first.json()["size_bytes"] == 24 * 440_000
    assert max(held) < 3 << 20


def test_a_route_may_make_one_thing_a_minute_without_a_key(
    api: ApiServer, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those do whose clients send again and have no keys."""
    now = api.store._clock()
    monkeypatch.setattr(api.store, "_clock", lambda: now)  # all in one minute
    assert get_args(OnceAMinute)[1].dependency._unkeyed
    monkeypatch.setattr(get_args(Once)[1].dependency, "_unkeyed", True)
    first = identity(job(api, {}, file))
    assert identity(job(api, {}, file)) == first
    assert identity(job(api, {"authorization": f"Bearer {COLLEAGUE}"}, file)) != first
    assert identity(job(api, {}, file, 11)) != first
    api.http.post(f"/v1/tuning/jobs/{first}/cancel")
    assert identity(job(api, {}, file)) != first, "somebody wanted it gone"
    rows = identity(upload(api, {}))
    assert identity(upload(api, {})) == rows == identity(upload(api, {}))
    assert identity(upload(api, {}, b"other")) != rows
    api.http.delete(f"/v1/files/{rows}")
    assert identity(upload(api, {})) != rows


def test_refusals_are_counted_by_reason(api: ApiServer) -> None:
    before = counted(api, "chorus_uploads_refused_total", reason="idempotency_key_reused")
    for seed in (1, 2):
        version(api, {"idempotency-key": "counted"}, seed)
    after = counted(api, "chorus_uploads_refused_total", reason="idempotency_key_reused")
    assert after == before + 1
