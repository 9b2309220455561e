"""Templates become pages. Everything that is put into one is escaped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

HERE = Path(__file__).parent


def number(value: float | None, digits: int = 3) -> str:
    """`1,234` or `0.917`; a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    """`91.7 %`; a dash for nothing."""
    return "–" if value is None else f"{100 * value:.1f} %"


def moment(value: datetime | None) -> str:
    """To the minute, in UTC."""
    return "–" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def size(value: float | None) -> str:
    """`3.4 MB`."""
    if value is None:
        return "–"
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit always fits")


def plain(value: object) -> str:
    """Any value of a document, for people."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def brief(document: Mapping[str, object]) -> str:
    """A small document in a line, with what is long cut short."""
    told = {name.replace("_", " "): value for name, value in document.items() if value not in ("", None, {})}
    parts = (f"{name} {plain(value)}" for name, value in told.items())
    return ", ".join(part if len(part) <= 60 else f"{part[:32]}…" for part in parts)


def task_path(reference: str, *rest: str, **query: object) -> str:
    """The page of `tenant/task`, or of something below it."""
    tenant, _, task = reference.partition("/")
    return local("tasks", tenant, task, *rest, **query)


def local(*parts: str, **query: object) -> str:
    """A path of the console."""
    path = "/".join(("/console", *(quote(part, safe="") for part in parts)))
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def _stamp() -> str:
    """Changes with what is beside the pages, so that a browser never shows a page in an older style."""
    digest = hashlib.sha256()
    for file in sorted((HERE / "static").iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    auto_reload=False,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(
    number=number,
    percent=percent,
    moment=moment,
    size=size,
    plain=plain,
    brief=brief,
    json=lambda value: json.dumps(value),
)
_ENVIRONMENT.globals.update(task_path=task_path, local=local, stamp=_stamp())


def page(template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """A page, or a part of one."""
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(**values), status)
