"""Who comes in, and what a page gives away: asked over HTTP as a browser asks, without one."""

from __future__ import annotations

import html
import operator
import re
import shlex
import time
from typing import Any

import click
import pytest

from chorus import Client
from chorus.cli.root import chorus
from chorus_server.api.routes.asgi import ROUTERS
from tests.clients.console.conftest import Site
from tests.clients.console.test_browser import PAGES as EVERY_PAGE

TASK = "/console/tasks/default/sentiment"
MOVE = f"{TASK}/move"
COOKIE = "chorus_console"
PAGES = [path for path in EVERY_PAGE if "sign-in" not in path]


def live(site: Site) -> Any:
    return site.operator.get("/v1/tasks/sentiment").json()["aliases"]["live"]


def test_without_a_session_pages_ask_for_a_key_and_come_back(site: Site) -> None:
    browser = site.browser()
    answer = browser.get(f"{TASK}?moved=live")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/console/sign-in?next=/console/tasks/default/sentiment")
    assert browser.get("/console/tasks", **{"HX-Request": "true"}).headers["hx-retarget"] == "#dialog"


def test_the_key_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(site: Site) -> None:
    key = site.key(name="cookie")
    browser = site.browser()
    answer = browser.post("/console/sign-in", {"key": key["key"], "next": TASK})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/console" in cookie
    assert answer.status_code == 303 and answer.headers["location"] == TASK
    assert "Secure" not in cookie
    page = browser.get(TASK)
    assert page.status_code == 200
    secret = key["key"].split("_")[2]
    for text in (answer.text, str(answer.headers), page.text, str(page.headers)):
        assert secret not in text
    assert browser.http.cookies[COOKIE] not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    assert page.headers["cache-control"] == "no-store"
    over_tls = browser.post("/console/sign-in", {"key": key["key"]}, Origin="https://chorus.example")
    assert "Secure" in over_tls.headers["set-cookie"]


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "//evil.example", "/v1/tasks", "javascript:alert(1)"]
)
def test_signing_in_leads_nowhere_else(site: Site, to: str) -> None:
    browser, key = site.browser(), site.key(name="nowhere")
    answer = browser.post("/console/sign-in", {"key": key["key"], "next": to})
    assert answer.headers["location"] == "/console"
    site.revoke(key)


@pytest.mark.parametrize("key", ["", "two words", "ck_wrong", "\u00e4" * 20, "x" * 5000])
def test_what_is_no_key_is_refused(site: Site, key: str) -> None:
    browser = site.browser()
    answer = browser.post("/console/sign-in", {"key": key})
    assert answer.status_code == 400 and 'role="alert"' in answer.text
    assert browser.get("/console/tasks").status_code == 303


def test_a_session_is_good_for_the_console_only(site: Site) -> None:
    """Its token is no key: what comes over the network with it is refused."""
    browser = site.browser(site.key(name="only")["key"])
    token = browser.http.cookies[COOKIE]
    answer = browser.http.get("/v1/tasks", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert browser.http.get("/v1/tasks").status_code == 401  # with the cookie, which is sent nowhere else
    assert browser.get("/console/tasks").status_code == 200  # the control


def test_a_revoked_key_ends_its_sessions_within_a_second(site: Site) -> None:
    key = site.key(name="revoked")
    browser, other = site.browser(key["key"]), site.browser(site.key(name="stays")["key"])
    assert browser.get("/console/tasks").status_code == 200
    site.revoke(key)
    until = time.monotonic() + 1
    while browser.get("/console/tasks").status_code == 200:
        assert time.monotonic() < until
    assert other.get("/console/tasks").status_code == 200


def test_signing_out_ends_the_session_for_good(site: Site) -> None:
    browser = site.browser(site.key(name="leaving")["key"])
    kept = browser.http.cookies[COOKIE]
    browser.get("/console/tasks")
    assert browser.post("/console/sign-out", {}).status_code == 303
    assert browser.http.cookies[COOKIE] != kept
    browser.http.cookies.clear()
    browser.http.cookies.set(COOKIE, kept, path="/console")
    assert browser.get("/console/tasks").status_code == 303


@pytest.mark.parametrize("csrf", ["", "0" * 64, "another"])
def test_a_change_without_the_pages_token_is_refused(site: Site, csrf: str) -> None:
    browser = site.browser(site.key(name="forged")["key"])
    before = live(site)
    if csrf == "another":
        other = site.browser()
        other.get("/console/sign-in")
        csrf = other.csrf
    form = {"alias": "live", "version": "1", "now": str(before), "back": ""}
    assert browser.post(MOVE, form, csrf=csrf).status_code == 403
    assert live(site) == before


def test_control_with_the_token_the_change_is_made(site: Site) -> None:
    browser, before = site.browser(site.key(name="owner")["key"]), live(site)
    browser.get(f"{MOVE}?version=1")
    form = {"alias": "live", "version": "1", "now": str(before), "back": ""}
    assert browser.post(MOVE, form).status_code == 303 and live(site) == 1
    stale = browser.post(MOVE, form)  # the page said something else
    assert stale.status_code == 409 and "moved meanwhile" in stale.text
    browser.get(TASK)
    assert browser.post(MOVE, {"alias": "live", "now": "1", "back": "1"}).status_code == 303
    assert live(site) == before
    told = site.operator.get("/v1/audit?limit=500").json()["rows"]
    assert {row["action"] for row in told} >= {"alias.move", "alias.rollback"}


def test_another_tenants_pages_are_like_those_of_nobody(site: Site) -> None:
    browser = site.browser(site.key("birch", name="neighbour")["key"])
    for path in ("", "/compare?version=1", "/move?version=1"):
        theirs, nobodys = browser.get(TASK + path), browser.get(f"/console/tasks/nobody/sentiment{path}")
        assert theirs.status_code == nobodys.status_code == 404
        assert "SST-2" not in theirs.text
    browser.get("/console/try")
    answer = browser.post("/console/try", {"task": "default/sentiment", "field.text": "a joyless mess"})
    assert answer.status_code == 200 and "There is no task" in answer.text and "negative" not in answer.text
    form = {"alias": "live", "version": "1", "now": str(live(site)), "back": ""}
    assert browser.post(MOVE, form).status_code == 404


def test_what_is_shared_is_shown_and_ended(site: Site) -> None:
    browser = site.browser(site.key(name="sharer")["key"])
    browser.get(TASK)
    shared = browser.post(f"{TASK}/share", {"grantee": "elm", "right": "infer"})
    assert shared.status_code == 303 and "Stop sharing with elm" in browser.get(TASK).text
    assert browser.post(f"{TASK}/share", {"grantee": "elm", "what": "end"}).status_code == 303
    assert "Stop sharing with elm" not in browser.get(TASK).text


def test_what_a_key_may_not_do_its_session_may_not(site: Site) -> None:
    browser = site.browser(site.key(name="reader", scopes=["prompts:read"])["key"])
    browser.get(TASK)
    form = {"alias": "live", "version": "1", "now": str(live(site)), "back": ""}
    answer = browser.post(MOVE, form)
    assert answer.status_code == 403 and "prompts:write" in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_every_page_names_a_route_a_method_and_a_command_that_are_there(site: Site, path: str) -> None:
    browser = site.browser(site.key(name="same")["key"])
    text = html.unescape(browser.get(path).text)
    routes = [re.sub(r"{[a-z]+}", "[^/]+", route.path) for router in ROUTERS for route in router.routes]
    shown = re.search(r'curl -s (?:-X [A-Z]+ )?"\$CHORUS_URL([^"?]+)', text)
    assert shown and any(re.fullmatch(re.sub(r"{[a-z]+}", "[^/]+", route), shown[1]) for route in routes), (
        text
    )
    names = re.search(r"client\.([a-z_.]+)\(", text)
    assert names and callable(operator.attrgetter(names[1])(Client("http://127.0.0.1:1", "")))
    if "chorus " in (command := re.search('aria-label="chorus"><code>([^<]*)', text) or [""])[0]:
        at: click.Command = chorus
        for word in shlex.split(command[1])[1:]:
            if isinstance(at, click.Group) and (found := at.commands.get(word)) is not None:
                at = found
        assert not isinstance(at, click.Group) or at.invoke_without_command, command[1]


def test_bodies_and_paths_that_nobody_needs(site: Site) -> None:
    browser = site.browser(site.key(name="odd")["key"])
    assert browser.get("/console/no-such-page").status_code == 404
    assert browser.get("/console/files/vendor/..%2F..%2Fdoor.py").status_code in (400, 404)
    browser.get("/console/try")
    files = {"file": ("many.txt", b"x\n" * (9 << 20))}
    headers = {"x-csrf-token": browser.csrf}
    answer = browser.http.post("/console/try", data={"task": "sentiment"}, files=files, headers=headers)
    assert answer.status_code == 413
