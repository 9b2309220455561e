"""One server with keys and one browser for all tests of the console."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chorus import Client
from tests.clients_in_the_wild.conftest import SHAPES
from tests.end_to_end.served import Served
from tests.pip_environment import pip_environment, unavailable

HERE = Path(__file__).parent
PICTURES = "CHORUS_CONSOLE_PICTURES"
"""Where this names a folder, as in CI, what the browser saw is kept there."""

EVERY_SCOPE = ["infer", "prompts:read", "prompts:write", "tune", "metrics:read", "admin", "operator"]
_CSRF = re.compile(r'name="csrf" content="([0-9a-f]{64})"')


@dataclass
class Site:
    """The server that the console is of.

    Attributes:
        url: where it listens.
        operator: asks its API with every right.
        opened: connections of the test that runs.
        made: how many keys were made.
    """

    url: str
    operator: httpx2.Client
    opened: list[httpx2.Client] = field(default_factory=list)
    made: int = 0

    def key(self, tenant: str = "default", name: str = "browser", scopes: Any = None) -> dict[str, Any]:
        """A new key of a tenant, which is made if it is not there."""
        made = self.operator.post("/v1/tenants", json={"name": tenant})
        assert made.status_code in (201, 409), made.text
        self.made += 1
        body = {"name": f"{name}-{self.made}", "scopes": scopes or EVERY_SCOPE[:-1]}
        answer = self.operator.post(f"/v1/keys?tenant={tenant}", json=body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def kept_browser(self, key: str) -> Browser:
        """One that is signed in, and open for longer than a test. Whoever asks for it closes it."""
        made = self.browser(key)
        self.opened.remove(made.http)
        return made

    def revoke(self, key: dict[str, Any]) -> None:
        """End a key."""
        answer = self.operator.delete(f"/v1/keys/{key['id']}?tenant={key['tenant']}")
        assert answer.status_code == 200, answer.text

    def browser(self, key: str | None = None) -> Browser:
        """Something that keeps cookies, as a browser does, signed in with a key."""
        self.opened.append(httpx2.Client(base_url=self.url, timeout=300))
        made = Browser(self.opened[-1])
        if key is not None:
            answer = made.post("/console/sign-in", {"key": key})
            assert answer.status_code == 303, answer.text
        return made


class Browser:
    """Asks for pages with its cookie, and brings the CSRF token of the last one."""

    def __init__(self, http: httpx2.Client) -> None:
        self.http = http
        self.csrf = ""

    def get(self, path: str, **headers: str) -> httpx2.Response:
        """A page."""
        answer = self.http.get(path, headers=headers)
        if found := _CSRF.search(answer.text):
            self.csrf = found[1]
        return answer

    def post(
        self, path: str, form: dict[str, Any], csrf: str | None = None, **headers: str
    ) -> httpx2.Response:
        """Send a form, with the token of a page that was shown before."""
        if not self.csrf:
            self.get("/console/sign-in")
        sent = self.csrf if csrf is None else csrf
        return self.http.post(path, data=form | {"csrf": sent}, headers=headers)


@pytest.fixture(scope="module", autouse=True)
def quickly(compiled_quickly: None) -> None:
    """For every test here: the server's programs are those of `tests/clients_in_the_wild`."""


@pytest.fixture(scope="package")
def one_site(tmp_path_factory: pytest.TempPathFactory, compiled_folder: Path) -> Iterator[Site]:
    """A server of the base and the tasks that ship, which needs a key."""
    data = tmp_path_factory.mktemp("console")
    (secret := data / "operator.key").write_text("an-operator-of-this-machine")
    with Served(data, compile_cache_dir=compiled_folder, operator_key_file=secret, **SHAPES) as server:
        server.wait_ready()
        server.http.headers["authorization"] = f"Bearer {secret.read_text()}"
        yield Site(str(server.http.base_url), server.http)


@pytest.fixture
def site(one_site: Site) -> Iterator[Site]:
    """That server; what asks it is closed after each test."""
    yield one_site
    while one_site.opened:
        one_site.opened.pop().close()


@pytest.fixture(scope="package")
def things(one_site: Site) -> dict[str, str]:
    """Something of each kind for the names in the paths of the console's routes: see `site_map.places`."""
    key = one_site.key(name="maker")
    with Client(one_site.url, key["key"]) as client:
        client.packs.create("drawer", {"mood": "sentiment@1"})
        client.packs.create("drawer", {"mood": "sentiment@3", "tone": "sentiment@1"})
        client.packs.promote("drawer", 2)
        client.ensembles.create("panel", ["sentiment@1", "sentiment@2"])
        client.ensembles.create("panel", ["sentiment@1", "sentiment@3"], weights=[1, 2])
        client.ensembles.promote("panel", 2)
        client.tasks.share("sentiment", "fir")
        rows = [{"text": "a joyless mess", "label": "negative"}, {"text": "funny", "label": "positive"}]
        job = client.evaluations.wait(client.evaluations.start(["sentiment@1", "sentiment@3"], rows * 4))
        # So many steps that it cannot be over before it is cancelled.
        tuning = client.tuning.start("shelved", train=rows * 8, target="label", recipe={"steps": 4000})
        client.tuning.cancel(tuning)
        tuned = client.tuning.wait(
            client.tuning.start("tuned", train=rows * 8, target="label", recipe={"steps": 2})
        )
        ended = client.evaluations.start(["sentiment@1"], rows * 1000)
        client.evaluations.cancel(ended)
        return {
            "tenant": "default", "task": "sentiment", "pack": "drawer", "ensemble": "panel",
            "key": key["id"], "job": job.id,
            "tuning": tuning.id, "file": str(job.result["predictions"]), "ended": ended.id,
            "tuned": tuned.id,
        }  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright, which has an event loop on this thread: no test may call
    `asyncio.run` until the module is over."""
    program = shutil.which("chromium")
    if program is None:
        unavailable("there is no Chromium: apt-get install chromium")
    folder = pip_environment(HERE / "browser.txt").parent / "lib"
    packages = next(folder.glob("python*/site-packages"))
    sys.path.append(str(packages))  # last: what is installed here goes before
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            yield browser
            browser.close()
    finally:
        sys.path.remove(str(packages))


@pytest.fixture(scope="module")
def axe(chromium: Any) -> str:
    """The script of axe-core."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What pages complain of in the browser's console: nothing, unless the test takes it out."""
    found: list[str] = []
    yield found
    assert found == []


Open = Callable[..., Any]


@pytest.fixture
def open_page(chromium: Any, site: Site, complaints: list[str]) -> Iterator[Open]:
    """Opens a window of its own, which nobody is signed in to."""
    contexts = []

    def make(width: int = 1440, scheme: str = "light") -> Any:
        size = {"width": width, "height": 900}
        context = chromium.new_context(viewport=size, color_scheme=scheme, base_url=site.url)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(300_000)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()


def sign_in(page: Any, key: str) -> None:
    """As a person does."""
    page.goto("/console/sign-in")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Tasks").wait_for()


def picture(page: Any, name: str) -> None:
    """Keep what the browser shows, where that is wanted."""
    if folder := os.environ.get(PICTURES):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)
