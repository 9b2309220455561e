"""Every page and every change of the console, derived from its routes: a new one cannot be forgotten."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

from chorus_console.routes import VIEWS

SHOWING = {
    "/tasks/{tenant}/{name}/compare": "?version=1&version=3",
    "/tasks/{tenant}/{name}/move": "?version=1",
    "/ensembles/{tenant}/{name}/move": "?version=1",
    "/packs/{tenant}/{name}/move": "?alias=live&back=1",
    "/try": "?task=default/entailment&task=default/sentiment@1",
    "/interpret": "?task=default/sentiment&other=default/sentiment@1",
    "/tenants/new": "?what=make&name=elm&weight=2&limit.per_minute.requests=600&usage_days=90",
    "/tenants/settings": "?what=change&weight=2&limit.stored.prompts=5",
    "/tenants/keys/{key}": "?show=1&limit.per_minute.requests=60",
    "/tenants/grants": "?kind=task&name=sentiment",
}
"""How pages are asked for where they would show little, or nothing, otherwise."""

NEEDED = {
    "/tasks/{tenant}/{name}/share": "admin",
    "/tasks/{tenant}/{name}/move": "prompts:write",
    "/ensembles/{tenant}/{name}/move": "prompts:write",
    "/packs/{tenant}/{name}/move": "prompts:write",
    "/try": "infer",
    "/tune": "tune",
    "/tune/data": "tune",
    "/tune/data/validation": "tune",
    "/tune/data/test": "tune",
    "/tune/preview": "tune",
    "/tune/{job}/cancel": "tune",
    "/tune/{job}/pause": "tune",
    "/tune/{job}/resume": "tune",
    "/jobs/evaluate": "tune",
    "/jobs/evaluate/data": "tune",
    "/jobs/fields": "tune",
    "/jobs/batch": "tune",
    "/jobs/batch/data": "tune",
    "/jobs/{job}": "tune",
    "/operations": "operator",
    "/tenants/new": "operator",
    "/tenants/settings": "operator",
    "/tenants/keys": "admin",
    "/tenants/keys/{key}": "admin",
    "/tenants/grants": "admin",
}
"""The scope without which the server refuses a change."""

ANYBODYS = ("/sign-in", "/sign-out")
"""What is there for those who have not signed in."""


@dataclass(frozen=True)
class Place:
    """A route of the console with real names in its path.

    Attributes:
        route: its path below `/console`, as declared.
        path: an address of it.
    """

    method: str
    route: str
    path: str

    @property
    def changes(self) -> bool:
        """Whether it changes something."""
        return self.method != "GET"


def places(things: Mapping[str, str]) -> list[Place]:
    """All routes of the console.

    Args:
        things: what stands for each name in braces. A job's page under `/tune` takes
            `tuning`, and a name is a task's, an ensemble's or a pack's.
    """

    def value(route: str, name: str) -> str:
        if name == "name":
            return things[route.split("/")[1].removesuffix("s")]
        return things["tuning" if name == "job" and route.startswith("/tune") else name]

    return [
        Place(method, route, "/console" + re.sub(r"{(\w+)}", lambda m, r=route: value(r, m[1]), route))
        for method, route, _ in VIEWS
    ]


def shown(things: Mapping[str, str]) -> list[str]:
    """Addresses of all that is only looked at, with what makes it show something."""
    return [place.path + SHOWING.get(place.route, "") for place in places(things) if not place.changes]


@dataclass
class Form:
    """A form of a page that changes something.

    Attributes:
        to: its address.
        buttons: their words.
    """

    to: str
    buttons: list[str] = field(default_factory=list)


class Forms(HTMLParser):
    """The forms of a page that change something, and the deeds for which it names calls.

    Attributes:
        senders: addresses of fields that send themselves.
        is_page: whether this is a whole page.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.deeds: list[str] = []
        self.senders: list[str] = []
        self.is_page = text.lstrip().lower().startswith("<!doctype html>")
        self._open: Form | None = None
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        to = found.get("hx-post") or (found.get("action", "") if found.get("method") == "post" else "")
        if tag == "form" and to:
            self._open = Form(to.partition("?")[0])
            self.forms.append(self._open)
        elif to:
            self.senders.append(to.partition("?")[0])
        if tag == "button" and self._open is not None and found.get("type", "submit") == "submit":
            self._into = self._open.buttons
            self._into.append("")
        if tag == "h3" and "data-deed" in found:
            self._into = self.deeds
            self._into.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("button", "h3"):
            self._into = None
        if tag == "form":
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data
