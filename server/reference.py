"""The pages of docs/ that are made from tables in the code: `python -m server.reference` writes them.

A test compares what is checked in with what the code says.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import click

from server.metrics import SERIES
from server.settings import Settings, flag_of, variable_of

DOCS = Path(__file__).parents[1] / "docs"


def settings_page() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Made from `server/settings.py` by `python -m server.reference`. The first of these that says one",
        "counts: the flag of `chorus serve`, the environment variable, the name in the TOML file that",
        "`--config` or `CHORUS_CONFIG` names, the default. Lists are written `64,128`, shapes",
        "`128x64x16,256x64x16` (in TOML also as arrays). A secret is never a setting itself: settings name",
        "the file that holds it.",
        "",
        "| flag | variable | values | default | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        from server.cli import shown_default

        default = (
            f"`{shown_default(field)}`" if shown_default(field) else "required" if field.is_required() else ""
        )
        values = _values(field.annotation, field.metadata)
        lines.append(
            f"| `{flag_of(name)}` | `{variable_of(name)}` | {values} | {default} | {field.description} |"
        )
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Made from `server/metrics.py` by `python -m server.reference`. `GET /metrics` answers in",
        "Prometheus's text format; where keys are set it needs the scrape token or the server's key.",
        "Histograms are also `NAME_bucket`, `NAME_sum` and `NAME_count`. `tenant` and `task` are capped by",
        "`CHORUS_METRICS_TENANT_SERIES` and `CHORUS_METRICS_TASK_SERIES`; later values count as `other`.",
        "",
        "| name | kind | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for series in SERIES:
        labels = ", ".join(f"`{label}`" for label in series.labels)
        lines.append(f"| `{series.name}` | {series.kind} | {labels} | {series.description} |")
    return "\n".join(lines) + "\n"


def openapi_page() -> str:
    """docs/openapi.json: of an app that serves nothing yet."""
    from server.api.routes.document import openapi_document
    from server.app import build_app, close_app

    with tempfile.TemporaryDirectory() as folder:
        app = build_app(Settings(model="any", data_dir=Path(folder)))
        try:
            document: dict[str, Any] = openapi_document(app.api)
        finally:
            close_app(app)
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


PAGES = {"settings.md": settings_page, "metrics.md": metrics_page, "openapi.json": openapi_page}


def main() -> None:
    """Write every page."""
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), encoding="utf-8")
        click.echo(f"docs/{name}")


def _values(kind: Any, metadata: list[Any]) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    parts = [
        part
        for part in (get_args(kind) if isinstance(kind, UnionType) else (kind,))
        if part is not type(None)
    ]
    names = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`", Path: "path"}
    shown = names.get(parts[0], "list")
    bounds = []
    for item in metadata:
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤")):
            if getattr(item, attribute, None) is not None:
                bounds.append(f"{sign} {getattr(item, attribute)}")
    return " ".join([shown, *bounds])


if __name__ == "__main__":
    main()
