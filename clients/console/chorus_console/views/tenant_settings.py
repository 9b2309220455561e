"""One tenant, for operators: made, renamed, weighted, limited, suspended and resumed, each after its
difference is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus.types import Tenant
from chorus_console import limits_form
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import Same, same
from chorus_console.views import forms

_LONGEST_DAYS = 36_500
_KEPT = ("usage_days", "audit_days")
_DEEDS = {"change": "Change it", "suspend": "Suspend it", "resume": "Resume it"}

Fact = tuple[str, str, str]
"""Its name, what it is, and what it would be."""


@dataclass(slots=True)
class _Asked:
    """What a form asks for, as texts.

    Attributes:
        limits: by path.
        retention: in days, by what is kept.
    """

    display_name: str = ""
    weight: str = "1"
    limits: dict[str, str] = field(default_factory=dict)
    retention: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tenant: Tenant) -> _Asked:
        """What a tenant has."""
        kept = {name: str(days) for name, days in tenant.retention.items() if days is not None}
        return cls(tenant.display_name, f"{tenant.weight:g}", limits_form.values_of(tenant.limits), kept)

    @classmethod
    def given(cls, items: Sequence[tuple[str, object]]) -> _Asked:
        """What a form, or an address, has."""
        texts = [(name, value.strip()) for name, value in items if isinstance(value, str)]
        fields = dict(texts)
        kept = {name: fields[name] for name in _KEPT if fields.get(name)}
        weight = fields.get("weight") or "1"
        return cls(fields.get("display_name", ""), weight, limits_form.given(texts), kept)

    def facts(self) -> dict[str, str]:
        """Each thing by a name for people; what is not there is left out."""
        found = {"display name": self.display_name, "weight": self.weight}
        found |= {f"limit: {path}": value for path, value in self.limits.items()}
        found |= {f"kept: {name.replace('_', ' ')}": value for name, value in self.retention.items()}
        return {name: value for name, value in found.items() if value}

    def documents(self) -> dict[str, Any]:
        """As the API takes it. Raises HTTPException 400 for what is no number."""
        weight = forms.number("The weight", self.weight, "1 or 2.5")
        kept = {
            name: limits_form.whole_number(name.replace("_", " "), days, _LONGEST_DAYS, 1)
            for name, days in self.retention.items()
        }
        return {
            "display_name": self.display_name, "weight": weight, "limits": limits_form.document(self.limits),
            "retention": kept,
        }  # fmt: skip


def _changes(now: _Asked, wanted: _Asked) -> dict[str, Any]:
    """Of what is asked for, that which differs."""
    before, after = now.documents(), wanted.documents()
    return {name: value for name, value in after.items() if value != before[name]}


def _mark(tenant: Tenant) -> str:
    """Differs once somebody has changed the tenant."""
    return hashlib.sha256(tenant.model_dump_json().encode()).hexdigest()[:24]


async def settings(visit: Visit) -> Response:
    """What a tenant has, a form to change it, and what would change."""
    query = visit.request.query_params
    name, what = query.get("tenant") or (await visit.me()).tenant.tenant, query.get("what", "")
    tenant = await visit.client.tenants.get(name)
    now = _Asked.of(tenant)
    wanted = _Asked.given(query.multi_items()) if what == "change" else now
    changes = _changes(now, wanted)
    facts = _differing(now.facts(), wanted.facts())
    if what in ("suspend", "resume"):
        facts = [("status", tenant.status, "suspended" if what == "suspend" else "active")]
        facts = [each for each in facts if each[1] != each[2]]
    return await visit.show(
        "tenant.html", name=name, tenant=name, shown=tenant, what=what if what in _DEEDS else "", facts=facts,
        deed=_DEEDS.get(what), asked=wanted, mark=_mark(tenant), **_form(),
        same=[
            same("GET", f"/v1/tenants/{name}", f"tenant = client.tenants.get({name!r})",
                 "chorus", "tenants", "show", name),
            _changing(name, changes).doing("Change it"),
            *(_switching(name, each).doing(_DEEDS[each]) for each in ("suspend", "resume")),
        ],
    )  # fmt: skip


def _form() -> dict[str, object]:
    return {
        "grid": limits_form.grid(True), "columns": limits_form.COLUMNS, "stored": limits_form.STORED,
        "kept": _KEPT,
    }  # fmt: skip


def _differing(now: Mapping[str, str], then: Mapping[str, str]) -> list[Fact]:
    names = dict.fromkeys((*now, *then))
    found = [(name, now.get(name, "–"), then.get(name, "–")) for name in names]
    return [each for each in found if each[1] != each[2]]


async def new(visit: Visit) -> Response:
    """A form for a new tenant, and what it would be."""
    await visit.needs("operator")
    query = visit.request.query_params
    name, what = query.get("name", "").strip(), query.get("what", "")
    asked = _Asked.given(query.multi_items()) if what == "make" else _Asked()
    asked.documents()
    facts = _differing({}, {"name": name} | asked.facts()) if what == "make" else []
    return await visit.show(
        "tenant.html", name=name, tenant=None, shown=None, what=what if what == "make" else "", facts=facts,
        deed="Make it", asked=asked, mark="", **_form(), same=_making(name or "acme", asked).doing("Make it"),
    )  # fmt: skip


def _making(name: str, asked: _Asked) -> Same:
    given = {key: value for key, value in asked.documents().items() if value and value != 1.0}
    more = "".join(f", {key}={value!r}" for key, value in given.items())
    return same(
        "POST", "/v1/tenants", f"tenant = client.tenants.create({name!r}{more})",
        "chorus", "tenants", "create", name, *_words(given), body={"name": name} | given,
    )  # fmt: skip


def _changing(name: str, changes: Mapping[str, Any]) -> Same:
    given = dict(changes) or {"weight": 2.0}
    more = "".join(f", {key}={value!r}" for key, value in given.items())
    return same(
        "PATCH", f"/v1/tenants/{name}", f"client.tenants.update({name!r}{more})",
        "chorus", "tenants", "update", name, *_words(given), body=given,
    )  # fmt: skip


def _words(given: Mapping[str, Any]) -> list[str]:
    """Options of `chorus tenants`."""
    words = []
    for name, value in given.items():
        if name == "limits":
            pairs = limits_form.values_of(value).items()
            words += [w for path, n in pairs for w in ("--limit", f"{path}={n}")] or ["--no-limits"]
        elif name == "retention":
            words += [w for kept, days in value.items() for w in ("--retention", f"{kept}={days}")] or [
                "--default-retention"
            ]
        else:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def _switching(name: str, what: str) -> Same:
    return same(
        "POST", f"/v1/tenants/{name}/{what}", f"client.tenants.{what}({name!r})",
        "chorus", "tenants", what, name,
    )  # fmt: skip


async def make(visit: Visit) -> Response:
    """Make a tenant; its keys come next."""
    name = await visit.text("name")
    asked = _Asked.given((await visit.form()).multi_items())
    made = await visit.client.tenants.create(name, **asked.documents())
    return visit.go(local("tenants", "keys", tenant=made.tenant))


async def change(visit: Visit) -> Response:
    """Do what the page showed, if the tenant still is as it said."""
    name, what = visit.request.query_params.get("tenant", ""), await visit.text("what")
    if what not in _DEEDS:
        raise HTTPException(400, "A tenant is changed, suspended or resumed.")
    client = visit.client.tenants
    tenant = await client.get(name)
    if await visit.text("mark") != _mark(tenant):
        raise HTTPException(409, f"{name} has changed since this page was shown: look at it again.")
    if what == "suspend":
        await client.suspend(name)
    elif what == "resume":
        await client.resume(name)
    else:
        wanted = _Asked.given((await visit.form()).multi_items())
        if changes := _changes(_Asked.of(tenant), wanted):
            await client.update(name, **changes)
    return visit.go(local("tenants", "settings", tenant=name))
