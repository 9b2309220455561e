"""Every error is raised as its class, and says what the server said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

import chorus
import chorus_server.errors as server_errors
import prompts_store.errors as store_errors
from chorus import ApiError, Client, errors
from tests.clients.fake_chorus import refuse


def descendants(kind: type) -> set[type]:
    return {kind, *(deeper for child in kind.__subclasses__() for deeper in descendants(child))}


def unmapped(codes: set[str], known: dict[str, type[ApiError]]) -> set[str]:
    return codes - set(known)


# Only the tree of chorus_server.errors: another room's subclass carries the codes of others.
TREE = {kind for kind in descendants(server_errors.ChorusError) if kind.__module__ == server_errors.__name__}
SERVER_CODES = {kind.default_code for kind in TREE}
STORE_CODES = {kind.default_code for kind in descendants(store_errors.StoreError)}


def test_every_code_of_the_server_is_mapped() -> None:
    assert unmapped(SERVER_CODES | STORE_CODES, errors.BY_CODE) == set()


def test_codes_of_single_items_are_mapped() -> None:
    """An item of a batch has no status of its own to fall back on, so a code of the engine must be known."""
    engine = Path(server_errors.__file__).parent / "engine"
    raised = {code for file in engine.rglob("*.py") for code in re.findall(r'code="(\w+)"', file.read_text())}
    at_start = {"memory_plan", "journal_unwritable"}
    assert raised, "the engine's own codes are found"
    assert unmapped(raised - at_start, errors.BY_CODE) == set()


def test_a_forgotten_code_would_be_noticed() -> None:
    """The control of the test above."""
    fewer = {code: kind for code, kind in errors.BY_CODE.items() if code != "engine_dead"}
    assert unmapped(SERVER_CODES, fewer) == {"engine_dead"}


@pytest.mark.parametrize("kind", sorted(TREE, key=lambda k: k.__name__))
def test_client_class_is_named_as_the_servers(kind: type[server_errors.ChorusError]) -> None:
    mine = errors.error_class(kind.default_code, kind.status)
    expected = "InternalError" if kind is server_errors.ChorusError else kind.__name__
    assert mine.__name__ == expected
    parents = {parent.__name__ for parent in kind.__mro__} & {"InvalidInputError"}
    assert parents <= {parent.__name__ for parent in mine.__mro__}


@pytest.mark.parametrize("status", sorted({k.status for k in TREE}))
def test_an_unknown_code_takes_the_class_of_its_status(status: int) -> None:
    assert errors.error_class("brand_new", status) is errors.BY_STATUS[status]
    assert errors.error_class("brand_new") is ApiError


def test_every_error_is_public() -> None:
    public = {name for name in vars(errors) if name.endswith("Error") and not name.startswith("_")}
    assert public <= set(chorus.__all__)


def failing(response: httpx2.Response) -> Client:
    return Client(transport=httpx2.MockTransport(lambda request: response), retries=0)


def test_an_error_says_all_that_the_server_said() -> None:
    response = refuse(429, "quota_exceeded", "Slow down.", "inputs.3", Retry_After="7")
    with failing(response) as client, pytest.raises(errors.QuotaExceededError) as raised:
        client.generate(input="x")
    error = raised.value
    assert (error.message, error.code, error.field) == ("Slow down.", "quota_exceeded", "inputs.3")
    assert (error.request_id, error.status, error.retry_after_seconds) == ("req_1", 429, 7.0)
    assert str(error) == "Slow down."


def test_a_batch_that_failed_whole_is_raised_as_its_first_item() -> None:
    detail = {"code": "deadline_exceeded", "message": "Too late.", "field": None, "request_id": "req_9"}
    body = {"id": "req_9", "results": [{"task": None, "error": detail}, {"task": None, "error": detail}]}
    with (
        failing(httpx2.Response(504, json=body)) as client,
        pytest.raises(errors.DeadlineExceededError, match="Too late"),
    ):
        client.generate(inputs=["a", "b"])


@pytest.mark.parametrize(
    "response",
    [
        httpx2.Response(200, text="<html>welcome</html>"),
        httpx2.Response(200, json=[1, 2]),
        httpx2.Response(200, json={"id": "r"}),
        httpx2.Response(302, headers={"location": "http://elsewhere/"}),
        httpx2.Response(404, text="nginx"),
        httpx2.Response(500, json={"error": "text"}),
        httpx2.Response(500, content=b"[" * 100_000),
        httpx2.Response(418, json={"error": {"code": 5}}),
    ],
)
def test_what_is_not_chorus_is_said_to_be_so(response: httpx2.Response) -> None:
    with failing(response) as client, pytest.raises(errors.UnexpectedAnswerError):
        client.generate(input="x")


def test_a_proxy_may_refuse_in_its_own_words() -> None:
    with failing(httpx2.Response(503, text="busy")) as client, pytest.raises(errors.OverloadedError):
        client.generate(input="x")


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (httpx2.ConnectError("refused"), errors.ConnectionFailedError),
        (httpx2.ConnectTimeout("slow"), errors.ConnectionFailedError),
        (httpx2.ReadTimeout("slow"), errors.CallTimeoutError),
        (httpx2.WriteTimeout("slow"), errors.CallTimeoutError),
        (httpx2.PoolTimeout("busy"), errors.CallTimeoutError),
        (httpx2.ReadError("reset"), errors.ConnectionLostError),
        (httpx2.RemoteProtocolError("closed"), errors.ConnectionLostError),
    ],
)
def test_failures_on_the_way(failure: httpx2.TransportError, kind: type[Exception]) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        raise failure

    with Client(transport=httpx2.MockTransport(fail), retries=0) as client, pytest.raises(kind) as raised:
        client.generate(input="x")
    assert raised.value.__cause__ is failure
    assert isinstance(raised.value, errors.ChorusError)


@pytest.mark.parametrize("url", ["", "nowhere", "ftp://host", "http://", "http://u:p@host", "http://h/?q=1"])
def test_bad_urls(url: str) -> None:
    with pytest.raises(errors.ConfigurationError):
        Client(url)


def test_the_url_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def look(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url))
        return httpx2.Response(200, json={"status": "ok"})

    def show(url: str | None = None) -> None:
        with Client(url, transport=httpx2.MockTransport(look)) as client:
            client.health()

    show()
    monkeypatch.setenv("CHORUS_URL", "http://variable:1")
    show()
    show("https://argument")
    assert seen == ["http://127.0.0.1:8000/healthz", "http://variable:1/healthz", "https://argument/healthz"]


def test_a_key_is_found(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def look(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("authorization"))
        return httpx2.Response(200, json={"status": "ok"})

    def show(key: str | None = None) -> None:
        with Client(api_key=key, transport=httpx2.MockTransport(look)) as client:
            client.health()

    show()
    file = tmp_path / "key"
    file.write_text(" secret-from-file\n")
    monkeypatch.setenv("CHORUS_API_KEY_FILE", str(file))
    show()
    monkeypatch.setenv("CHORUS_API_KEY", "secret-from-variable")
    show()
    show("secret-argument")
    show("")
    assert seen == [
        None,
        "Bearer secret-from-file",
        "Bearer secret-from-variable",
        "Bearer secret-argument",
        None,
    ]


@pytest.mark.parametrize("content", [b"", b"  \n", b"two\nkeys", b"caf\xc3\xa9", b"x" * 5000, None])
def test_bad_key_files_are_refused_without_showing_them(
    tmp_path: Any, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("CHORUS_API_KEY_FILE", str(file))
    with pytest.raises(errors.ConfigurationError) as raised:
        Client()
    shown = str(raised.value)
    assert str(file) in shown
    assert not content or content.strip()[:20].decode("latin-1") not in shown or not content.strip()


def test_a_key_is_in_no_error_and_no_repr() -> None:
    canary = "canary-5f0e"

    def refuse_all(request: httpx2.Request) -> httpx2.Response:
        assert canary in request.headers["authorization"]
        return refuse(401, "unauthenticated", "No valid key came with the request.")

    with Client(api_key=canary, transport=httpx2.MockTransport(refuse_all)) as client:
        with pytest.raises(errors.UnauthenticatedError) as raised:
            client.model()
        shown = [
            repr(raised.value),
            json.dumps(vars(raised.value), default=repr),
            repr(client),
            repr(vars(client)),
        ]
        shown += [repr(client._transport), repr(client._transport._connection)]
    assert [text for text in shown if canary in text] == []
