"""The pages of docs/ that are made from the code, whole or in part: `python -m server.reference` writes them.

A test compares what is checked in with what the code says.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click

from server.settings import Settings, flag_of, variable_of
from server.tuning.document.data import DataDocument, DataSource
from server.tuning.document.fields import DocumentModel
from server.tuning.document.job import JobDocument
from server.tuning.document.prompt import PromptDocument
from server.tuning.document.recipe import Recipe

DOCS = Path(__file__).parents[1] / "docs"


def settings_page() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Made from `server/settings/` by `python -m server.reference`. The first of these that says one",
        "counts: the flag of `chorus serve`, the environment variable, the name under its group in the TOML",
        "file that `--config` or `CHORUS_CONFIG` names, the default. Lists are written `64,128`, shapes",
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
    from server.api.metrics import Metrics

    lines = [
        "# Metrics",
        "",
        "Made from the `metrics.py` of each room by `python -m server.reference`. `GET /metrics` answers in",
        "Prometheus's text format; where keys are set it needs the scrape token or the server's key.",
        "Histograms are also `NAME_bucket`, `NAME_sum` and `NAME_count`. The first 50 values of `tenant` and",
        "the first `CHORUS_METRICS_TASK_SERIES` of `task` have series of their own; later ones count as",
        "`other`.",
        "",
        "| name | kind | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for series in Metrics().registry.table:
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


def tuning_page() -> str:
    """docs/tuning.md, with the fields of a job document between its marks."""
    page = (DOCS / "tuning.md").read_text(encoding="utf-8")
    for model in (JobDocument, PromptDocument, DataDocument, DataSource, Recipe):
        begin, end = f"<!-- {model.__name__}: made by python -m server.reference -->\n", "<!-- end -->\n"
        before, _, rest = page.partition(begin)
        page = before + begin + _fields(model) + end + rest.partition(end)[2]
    return page


def _fields(model: type[DocumentModel]) -> str:
    """A table of what a model has and its parent has not."""
    parent = model.__mro__[1]
    known = parent.model_fields if issubclass(parent, DocumentModel) else {}
    lines = ["| field | values | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        if name not in known:
            none = field.default is None or field.default_factory is not None
            default = "" if none else f"`{json.dumps(field.default)}`"
            values = _values(field.annotation, field.metadata)
            lines.append(f"| `{name}` | {values} | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


PAGES = {
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "openapi.json": openapi_page,
    "tuning.md": tuning_page,
}


def main() -> None:
    """Write every page."""
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), encoding="utf-8")
        click.echo(f"docs/{name}")


def _values(kind: Any, metadata: list[Any]) -> str:
    parts = [part for part in (get_args(kind) if _is_union(kind) else (kind,)) if part is not type(None)]
    first, metadata = _bare(parts[0], metadata)
    if get_origin(first) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(first))
    names = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`", Path: "path"}
    if isinstance(first, type) and issubclass(first, DocumentModel):
        shown = "object"
    elif get_origin(first) is dict:
        shown = "object" if get_args(first)[1] is Any else "object of texts"
    else:
        shown = names.get(first, "list")
    most = "of at most {} characters" if first is str else "of at most {}"
    signs = (("ge", "≥ {}"), ("gt", "> {}"), ("le", "≤ {}"), ("max_length", most))
    bounds = [
        sign.format(getattr(item, attribute))
        for item in metadata
        for attribute, sign in signs
        if getattr(item, attribute, None) is not None
    ]
    return " ".join([shown, *bounds])


def _is_union(kind: Any) -> bool:
    return isinstance(kind, UnionType) or get_origin(kind) is Union


def _bare(kind: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    """A type without its annotations, which go to the others."""
    if get_origin(kind) is not Annotated:
        return kind, metadata
    bare, *own = get_args(kind)
    return bare, [*metadata, *(item for each in own for item in getattr(each, "metadata", [each]))]


if __name__ == "__main__":
    main()
