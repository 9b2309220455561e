"""Every change and every page of the console, from its routes: whose they are, what they need, and what does
the same elsewhere."""

from __future__ import annotations

import html
import operator
import re
import shlex
from collections.abc import Iterator

import click
import pytest

from chorus import Client
from chorus.cli.root import chorus
from chorus_console.routes import VIEWS
from chorus_server.api.routes.asgi import ROUTERS
from tests.clients.console.conftest import EVERY_SCOPE, Browser, Site
from tests.clients.console.site_map import ANYBODYS, NEEDED, SHOWING, Forms, Place, places, shown

CHANGES = [(method, route) for method, route, _ in VIEWS if method != "GET"]
NAMED = [(method, route) for method, route, _ in VIEWS if "{" in route]
PART = {"HX-Request": "true"}
OUT_OF_DATE = "This page was out of date"


def one(things: dict[str, str], method: str, route: str) -> Place:
    return next(place for place in places(things) if (place.method, place.route) == (method, route))


@pytest.fixture(scope="module")
def owner(one_site: Site) -> Iterator[Browser]:
    """Signed in with every right."""
    browser = one_site.kept_browser(one_site.key(name="changes", scopes=EVERY_SCOPE)["key"])
    yield browser
    browser.http.close()


@pytest.fixture(scope="module")
def readers(one_site: Site) -> Iterator[tuple[Browser, Browser]]:
    """Two browsers of somebody who may look only."""
    key = one_site.key(name="forged", scopes=["prompts:read"])["key"]
    both = one_site.kept_browser(key), one_site.kept_browser(key)
    yield both
    for browser in both:
        browser.http.close()


@pytest.mark.parametrize(("method", "route"), CHANGES)
def test_a_change_needs_the_token_of_this_browsers_page(
    readers: tuple[Browser, Browser], site: Site, things: dict[str, str], method: str, route: str
) -> None:
    """Not none, nor a wrong one, nor one that another browser was given. What it would do needs a right that
    nobody here has, so that the control does nothing either."""
    path, (browser, other) = one(things, method, route).path, readers
    if route in ANYBODYS:
        browser = site.browser(site.key(name="leaves")["key"])
    other.get("/console/tasks")
    browser.get("/console/tasks")
    for token in ("", "0" * 64, other.csrf):
        for headers in ({}, PART | {"x-csrf-token": token}):
            answer = browser.http.post(path, data={"csrf": token}, headers=headers)
            assert answer.status_code == 403 and OUT_OF_DATE in answer.text, (token, headers)
    assert OUT_OF_DATE not in browser.post(path, {}).text  # the control


@pytest.mark.parametrize(("method", "route"), CHANGES)
def test_a_page_of_another_site_changes_nothing(
    owner: Browser, things: dict[str, str], method: str, route: str
) -> None:
    owner.get("/console/tasks")
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}):
        answer = owner.post(one(things, method, route).path, {}, **headers)
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "foreign_origin"


def test_a_form_that_is_sent_after_its_session_asks_for_a_key_and_stays(
    site: Site, things: dict[str, str]
) -> None:
    """As a part of a page: a dialog. As a whole one: the sign-in page, which leads back. Nothing is done."""
    key = site.key(name="ending", scopes=EVERY_SCOPE)
    browser = site.browser(key["key"])
    browser.get("/console/tasks")
    site.revoke(key)
    while browser.http.get("/console/tasks").status_code == 200:
        pass  # test_door looks that it is within a second
    for method, route in CHANGES:
        if route in ANYBODYS:
            continue
        path = one(things, method, route).path
        part = browser.http.post(path, headers=PART | {"x-csrf-token": browser.csrf})
        assert part.status_code == 401 and part.headers["hx-retarget"] == "#dialog", path
        assert "Sign in again" in part.text
        whole = browser.post(path, {})
        assert whole.status_code == 303, path
        assert whole.headers["location"].startswith("/console/sign-in?next=/console/")


@pytest.fixture(scope="module")
def neighbour(one_site: Site) -> Iterator[Browser]:
    """Signed in with every right in another tenant."""
    browser = one_site.kept_browser(one_site.key("birch", name="neighbour")["key"])
    browser.get("/console/tasks")
    yield browser
    browser.http.close()


@pytest.mark.parametrize(("method", "route"), NAMED)
def test_another_tenants_things_are_like_those_of_nobody(
    neighbour: Browser, owner: Browser, things: dict[str, str], method: str, route: str
) -> None:
    nothing = things | {
        "tenant": "nobody", "key": "key-" + "0" * 24, "job": "job-" + "0" * 24,
        "tuning": "job-" + "0" * 24, "file": "file-" + "0" * 24,
    }  # fmt: skip
    what = {"/jobs/{job}": "cancel", "/tenants/keys/{key}": "revoke"}.get(route, "end")
    form = {"what": what, "alias": "live", "version": "1", "now": "2", "grantee": "elm"}
    answers = []
    for some in (things, nothing):
        path = one(some, method, route).path
        address = path + SHOWING.get(route, "")
        found = neighbour.get(address) if method == "GET" else neighbour.post(path, form)
        text = re.sub(r"req_\w+", "", found.text)
        for each in (things, nothing):
            for name in ("tenant", "key", "job", "tuning", "file"):
                text = text.replace(each[name], "")
        answers.append((found.status_code, text))
        if method == "GET" and some is things:
            assert owner.get(address).status_code in (200, 303)  # the control
    assert answers[0][0] == 404 and answers[0] == answers[1]


def commands(text: str) -> Iterator[str]:
    yield from re.findall(r'aria-label="(?:[^"]*: )?chorus"><code>([^<]*)', text)


def check_calls(text: str) -> int:
    """Every call that a page names is there: its route and method, the client's method, the command with its
    options. Returns how many there are."""
    declared = [route for router in ROUTERS for route in router.routes]
    routes = [(set(route.methods), re.sub(r"{[a-z]+}", "[^/]+", route.path)) for route in declared]
    curls = re.findall(r'curl -s (?:-X ([A-Z]+) )?"\$CHORUS_URL([^"?]+)', text)
    for verb, path in curls:
        assert any((verb or "GET") in methods and re.fullmatch(route, path) for methods, route in routes), (
            path
        )
    client = Client("http://127.0.0.1:1", "")
    names = re.findall(r"with Client\(\) as client:\n    (?:\w+ = )?client\.([a-z_.]+)\(", text)
    assert len(names) == len(curls)
    for name in names:
        assert callable(operator.attrgetter(name)(client)), name
    client.close()
    for command in commands(text):
        at: click.Command = chorus
        words = shlex.split(command)[1:]
        context = click.Context(chorus, info_name="chorus")
        while isinstance(at, click.Group) and words and (found := at.get_command(context, words[0])):
            at, words = found, words[1:]
            context = click.Context(at, parent=context, info_name=at.name)
        if not isinstance(at, click.Group):
            try:
                at.make_context(at.name, list(words), parent=context)  # fails for what it does not take
            except click.BadParameter as error:
                assert "does not exist" in str(error)  # the file of the example
    return len(curls)


def test_every_page_and_every_change_names_the_calls_that_do_the_same(
    owner: Browser, things: dict[str, str]
) -> None:
    """What a button does stands under its words."""
    addresses = [*shown(things), f"/console/jobs/{things['ended']}"]
    reached: set[str] = set()
    for address in addresses:
        answer = owner.get(address)
        if answer.status_code == 303 or "text/html" not in answer.headers.get("content-type", ""):
            continue
        assert answer.status_code == 200, (address, answer.text)
        page, text = Forms(answer.text), html.unescape(answer.text)
        reached |= {form.to for form in page.forms} | set(page.senders)
        if not page.is_page or address.startswith("/console/sign-in"):
            continue
        assert check_calls(text), address
        for form in page.forms:
            if form.to not in ("/console/sign-in", "/console/sign-out"):
                for words in form.buttons:
                    assert words in page.deeds, (address, words, page.deeds)
    headers = PART | {"x-csrf-token": owner.csrf}
    for page_of in ("/console/tune", "/console/jobs/evaluate", "/console/jobs/batch"):
        sent = {"file": ("films.csv", b"text,label\na,yes\nb,no\n")}
        looked = Forms(owner.http.post(f"{page_of}/data", files=sent, headers=headers).text)
        reached |= {form.to for form in looked.forms} | set(looked.senders)
    missing = {place.path for place in places(things) if place.changes} - reached
    # A job's page shows what it may be: these are of other jobs than those of `things`.
    missing -= {f"/console/jobs/{things['job']}"}
    missing -= {f"/console/tune/{things['tuning']}/{what}" for what in ("cancel", "pause")}
    assert missing == set() and f"/console/jobs/{things['ended']}" in reached


def offered(browser: Browser, things: dict[str, str]) -> tuple[set[str], set[str]]:
    """Routes of the changes that the pages offer, and addresses that they lead to."""
    forms: set[str] = set()
    links: set[str] = set()
    tuned = f"/console/tune/{things['tuned']}"
    for address in (*shown(things), f"/console/jobs/{things['ended']}", tuned, f"{tuned}/live"):
        for headers in ({}, PART):
            answer = browser.get(address, **headers)
            if answer.status_code == 200 and "text/html" in answer.headers.get("content-type", ""):
                page, text = Forms(answer.text), html.unescape(answer.text)
                forms |= {form.to for form in page.forms} | set(page.senders)
                links |= set(re.findall(r'<a [^>]*href="(/console[^"]*)"', text))
                links |= set(re.findall(r'<form [^>]*method="get" action="(/console[^"]*)"', text))
    patterns = {route: re.sub(r"{\w+}", "[^/]+", f"/console{route}") for route in NEEDED}
    found = {
        next((route for route, pattern in patterns.items() if re.fullmatch(pattern, to)), to)
        for to in forms if not to.startswith("/console/sign-")
    }  # fmt: skip
    return found, links


@pytest.mark.parametrize("missing", ["infer", "prompts:write", "tune", "metrics:read", "admin", "operator"])
def test_no_page_offers_what_its_key_may_not(
    owner: Browser, site: Site, things: dict[str, str], missing: str
) -> None:
    """Neither a change nor a way to a page. The control: who may is offered it."""
    assert {route for _, route in CHANGES if route not in ANYBODYS} == set(NEEDED)
    key = site.key(name="partly", scopes=[each for each in EVERY_SCOPE if each != missing])["key"]
    browser = site.browser(key)
    changes, links = offered(browser, things)
    assert changes <= set(NEEDED) and {route for route in changes if NEEDED[route] == missing} == set()
    refused = {link for link in links if browser.http.get(link).status_code == 403}
    assert refused == set()
    changes, links = offered(owner, things)
    assert missing in {NEEDED[route] for route in changes} or missing == "metrics:read"
    assert any(browser.http.get(link).status_code == 403 for link in links) or missing == "prompts:write"


def test_control_a_call_that_is_not_there_is_noticed() -> None:
    shape = 'curl -s "$CHORUS_URL{path}"\nwith Client() as client:\n    {python}\n'
    shape += 'aria-label="chorus"><code>{command}</code>'
    good = {"path": "/v1/tasks", "python": "tasks = client.tasks.list()", "command": "chorus tasks list"}
    assert check_calls(shape.format(**good)) == 1
    for change in (
        {"path": "/v1/nothing"},
        {"python": "client.tasks.nothing()"},
        {"command": "chorus tasks list --no"},
    ):
        with pytest.raises((AssertionError, AttributeError, click.ClickException)):
            check_calls(shape.format(**good | change))
