"""The console on servers that need no key, and on ones whose store does not answer."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chorus_server import console_wiring
from chorus_server.app import build_app
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.settings import Settings
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import ALL_SCOPES, Principal
from prompts_store.database import EVERY_TENANT
from tests.server.api.api_harness import ApiServer

KEY = "canary-of-a-browser-0123456789"
TASKS = "/console/tasks"


@pytest.fixture
def keyed(tmp_path: Path, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    ring = KeyRing({KEY: Principal("default", "operator", ALL_SCOPES)}, Principal("default", "anonymous"))
    with ApiServer(tmp_path, vocabulary, keys=ring) as server:
        yield server


class Browser:
    """Keeps cookies, and sends forms with the token of the sign-in page."""

    def __init__(self, api: ApiServer) -> None:
        self.http = httpx2.Client(base_url=api.url, timeout=300)
        self.session = f"chorus_console_{api.port}"

    def stale(self, token: str = "x" * 43) -> None:
        """As if it had signed in long ago, or to another server of this host."""
        self.http.cookies.set(self.session, f"cs_{token}", domain="127.0.0.1", path="/console")

    def post(self, path: str, **form: str) -> httpx2.Response:
        """Send a form."""
        found = re.search('name="csrf" content="([0-9a-f]{64})"', self.http.get("/console/sign-in").text)
        assert found
        return self.http.post(path, data=form | {"csrf": found[1]})


@pytest.fixture
def opened(api: ApiServer) -> Iterator[Browser]:
    made = Browser(api)
    with made.http:
        yield made


@pytest.fixture
def signed_in(keyed: ApiServer) -> Iterator[Browser]:
    made = Browser(keyed)
    with made.http:
        assert made.post("/console/sign-in", key=KEY, next=TASKS).headers["location"] == TASKS
        assert made.http.get(TASKS).status_code == 200
        yield made


def test_where_no_key_is_needed_whatever_is_pasted_locks_nobody_out(opened: Browser) -> None:
    answer = opened.post("/console/sign-in", key="whatever", next=TASKS)
    assert answer.status_code == 303 and answer.headers["location"] == TASKS
    assert opened.session not in opened.http.cookies
    assert opened.http.get(TASKS).status_code == 200


def test_where_no_key_is_needed_a_session_of_elsewhere_is_dropped(opened: Browser) -> None:
    opened.stale()
    page = opened.http.get(TASKS)
    assert page.status_code == 200 and opened.session not in opened.http.cookies
    opened.stale()
    assert opened.post("/console/sign-in", key="whatever", next=TASKS).status_code == 303
    assert opened.session not in opened.http.cookies
    assert opened.http.get(TASKS).status_code == 200


def test_control_where_a_key_is_needed_it_is_not(keyed: ApiServer) -> None:
    browser = Browser(keyed)
    with browser.http:
        browser.stale()
        answer = browser.http.get(TASKS)
        assert answer.status_code == 303 and answer.headers["location"].endswith("&over=1")


def test_a_server_beside_this_one_on_its_host_has_another_cookie(opened: Browser, signed_in: Browser) -> None:
    assert opened.session != signed_in.session
    opened.http.cookies.update(signed_in.http.cookies)
    assert opened.http.get(TASKS).status_code == 200
    signed_in.http.cookies.update(opened.http.cookies)
    assert signed_in.http.get(TASKS).status_code == 200


@pytest.mark.parametrize("path", [TASKS, "/console/tenants/keys", "/console/operations"])
def test_a_name_that_suddenly_means_this_machine_shows_nothing(opened: Browser, path: str) -> None:
    answer = opened.http.get(path, headers={"host": "attacker.example"})
    assert answer.status_code == 403 and "does not answer to that name" in answer.text


def test_a_store_that_does_not_answer_is_told_and_signs_out_here(
    keyed: ApiServer, signed_in: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, keyed.store._database.write(EVERY_TENANT):
        # Nobody else can write meanwhile.
        patch.setattr(keyed.store._database, "patience_seconds", 0.01)
        refused = signed_in.post("/console/sign-out")
        assert refused.status_code == 503 and "database" in refused.text
        assert refused.headers["retry-after"]
        assert signed_in.session not in signed_in.http.cookies
        assert signed_in.post("/console/sign-in", key=KEY).status_code == 503
        assert signed_in.session not in signed_in.http.cookies
    assert signed_in.post("/console/sign-in", key=KEY).status_code == 303


def test_who_guesses_is_told_when_to_try_again(
    keyed: ApiServer, signed_in: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyed.services.sessions._guesses, "_clock", lambda: 0.0)  # all in one second
    browser = Browser(keyed)
    with browser.http:
        for number in range(40):
            browser.stale(f"{number:043d}")
            answer = browser.http.get(TASKS)
            if answer.status_code == 429:
                break
            assert answer.status_code == 303
        assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
    assert signed_in.http.get(TASKS).status_code == 200


@pytest.mark.parametrize(
    ("given", "served"),
    [
        ({}, True),
        ({"http_host": "0.0.0.0", "insecure_bind": True}, False),
        ({"http_host": "0.0.0.0", "insecure_bind": True, "console": True}, True),
        ({"http_host": "0.0.0.0", "insecure_bind": True, "operator_key_file": "key"}, True),
        ({"console": False}, False),
    ],
)
def test_it_is_served_unless_others_come_in_without_a_key(
    tmp_path: Path, given: dict[str, Any], served: bool
) -> None:
    (tmp_path / "key").write_text(KEY)
    if "operator_key_file" in given:
        given = given | {"operator_key_file": tmp_path / "key"}
    app = build_app(Settings(model="tiny", data_dir=tmp_path / "data", **given))
    try:
        paths = [getattr(route, "path", "") for route in app.api.routes]
        assert any(path.startswith("/console") for path in paths) is served
    finally:
        app.services.changes.close()
        app.services.library.close()


LARGE = 48 << 20


@pytest.mark.parametrize("whole", [False, True], ids=["streams", "control"])
def test_a_download_is_never_whole_in_memory(
    keyed: ApiServer, signed_in: Browser, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """A large file goes through the console in pieces, as through the API. The control sends it through a
    transport that collects answers."""
    if whole:
        monkeypatch.setattr(
            console_wiring,
            "InProcess",
            lambda api, address: httpx2.ASGITransport(_Marked(api), client=(address, 0)),
        )
    pieces = (bytes([number]) * (1 << 20) for number in range(LARGE >> 20))
    bearer = {"authorization": f"Bearer {KEY}", "content-type": "application/octet-stream"}
    sent = httpx2.post(f"{keyed.url}/v1/files?name=large.jsonl", content=pieces, headers=bearer, timeout=300)
    assert sent.status_code == 201, sent.text
    count = 0
    tracemalloc.start()
    try:
        with signed_in.http.stream("GET", f"/console/jobs/files/{sent.json()['id']}") as answer:
            assert answer.status_code == 200 and answer.headers["content-length"] == str(LARGE)
            for piece in answer.iter_raw():
                count += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == LARGE
    assert peak > LARGE if whole else peak < LARGE / 4


class _Marked:
    """The API as the console asks it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app({**scope, "chorus.in_process": True}, receive, send)


def test_too_much_work_at_once_is_refused(
    keyed: ApiServer, signed_in: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are read on the server's few threads, and no more wait for them than for anything else."""
    form = {"task": "nothing", "rows": "a text"}
    assert signed_in.post("/console/try", **form).status_code == 200
    monkeypatch.setattr(keyed.services.text, "_waiting", 0)
    refused = signed_in.post("/console/try", **form)
    assert (
        refused.status_code == 503 and "The server is busy" in refused.text and refused.headers["retry-after"]
    )
