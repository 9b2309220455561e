"""Files that are generated from the code, whole or in part. `python -m chorus_server.reference` writes them.

A test compares the files in the repository with what the code generates.
"""

from __future__ import annotations

import json
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click

from chorus_server.api.schemas.documents.evaluation import BaseSubject, EvaluationDocument, EvaluationSubject
from chorus_server.api.schemas.openai.chat import ChatBody
from chorus_server.api.schemas.openai.completions import CompletionsBody
from chorus_server.api.schemas.openai.fine_tuning import FineTuningBody, Hyperparameters
from chorus_server.api.schemas.openai.lenient import LenientBody, fates
from chorus_server.api.schemas.openai.responses import ResponsesBody
from chorus_server.cli import shown_default
from chorus_server.engine.ladder import PRESETS, build_ladder, program_count
from chorus_server.settings import DEPRECATED, GROUPS, REMOVED, Settings, flag_of, title_of, variable_of
from chorus_server.settings.values import ShapeChoice, written
from chorus_server.tuning.document.data import DataDocument, DataSource
from chorus_server.tuning.document.fields import DocumentModel
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.document.prompt import PromptDocument
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.document.sweep import Rung, SweepDocument, ValueRange

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


SETTINGS_FILE = """\
[http]
http_host = "0.0.0.0"
operator_key_file = "/etc/chorus/operator-key"

[engine]
model = "google/flan-t5-small"
shapes = "small"

[store]
data_dir = "/var/lib/chorus"

[tuning]
tuning_share = 0.2
"""
"""The example in docs/settings.md."""

CHANGE_FIRST = {
    "model": "The base that ships is small: name your own, as a folder or a hub id.",
    "data_dir": "It holds everything that must last: put it on a disk that is backed up.",
    "http_host": "By default only this machine reaches the server; any other address needs a key.",
    "operator_key_file": "A file of one line, 16 characters or more: the key that makes tenants and keys.",
    "shapes": "Short inputs start sooner with `small`; on a GPU or TPU `auto` fills the device.",
    "prompt_rows": "All prompts in use at once should fit: tasks in use times the rows of a prompt.",
    "tuning_share": "Tuning runs only when no request waits; give it a share if jobs must go on under load.",
    "drain_seconds": "Keep it below the time after which your supervisor kills the process.",
}
"""What an operator changes first, and why."""

_SETTINGS_HEAD = (
    "| setting | flag and variable | values | default | meaning |",
    "| --- | --- | --- | --- | --- |",
)


def settings_page() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "To serve a model of your own to other machines, write `chorus.toml` and start with it:",
        "",
        "```toml",
        *SETTINGS_FILE.splitlines(),
        "```",
        "",
        "    chorus serve --config chorus.toml",
        "",
        "You can also give a setting as a flag (`--data-dir /var/lib/chorus`) or as an environment variable",
        "(`CHORUS_DATA_DIR=/var/lib/chorus`). A flag overrides a variable, a variable overrides the file",
        "that `--config` or `CHORUS_CONFIG` names, and the file overrides the default. Lists are written",
        "`a,b` (in the file also as arrays). A secret is never a setting: settings name the file that holds",
        "it.",
        "",
        "## What to change first",
        "",
        "| setting | why |",
        "| --- | --- |",
        *(f"| `{name}` | {why} |" for name, why in CHANGE_FIRST.items()),
        "",
        "`python -m chorus_server.reference` generates everything below from the package `settings`.",
    ]
    for group, members in GROUPS.items():
        lines += ["", f"## `[{group}]`", "", f"{title_of(group)}.", "", *_SETTINGS_HEAD]
        lines += [_setting_row(name) for name in members.model_fields if name not in DEPRECATED]
    lines += [
        "",
        "## The presets of `shapes`",
        "",
        "More programs take longer to compile at the first start. More slots take more memory; the server",
        "prints how much when it starts.",
        "",
        "| `shapes` | programs | `input_lengths` | `batch_rows` | `blocks` | `score_buckets` |",
        "| --- | ---: | --- | --- | --- | --- |",
    ]
    for name, lists in PRESETS.items():
        cells = " | ".join(f"`{written(each)}`" for each in lists)
        lines.append(f"| `{name}` | {program_count(build_ladder(*lists))} | {cells} |")
    lines += [
        "",
        "An expert puts lists in place of a preset's, as words after it or without it:",
        "`--shapes 'small batch_rows=1,4'`, in the file also",
        '`shapes = {preset = "small", batch_rows = [1, 4]}`.',
        "",
        "| part | what it is |",
        "| --- | --- |",
        *(f"| `{name}` | {field.description} |" for name, field in ShapeChoice.model_fields.items()),
        "",
        "## Deprecated settings",
        "",
        "These still work, and the log of a start that is given one says what to do instead.",
        "",
        *_SETTINGS_HEAD,
        *map(_setting_row, DEPRECATED),
        "",
        "## Removed settings",
        "",
        "If you still give one of these, as a flag, a variable or in the file, the server says so and ends.",
        "",
        "| removed | what happens now |",
        "| --- | --- |",
        *(f"| `{name}` | {told[0].upper()}{told[1:]}. |" for name, told in REMOVED.items()),
    ]
    return "\n".join(lines) + "\n"


def _setting_row(name: str) -> str:
    field = Settings.model_fields[name]
    default = f"`{shown_default(field)}`" if shown_default(field) else ""
    values = _values(field.annotation, field.metadata)
    given = f"`{flag_of(name)}` `{variable_of(name)}`"
    return f"| `{name}` | {given} | {values} | {default} | {field.description} |"


METRICS_EXAMPLE = """\
$ curl -s http://127.0.0.1:8000/metrics | grep -E '^chorus_(requests_total|queued|prompt_rows_res)'
chorus_requests_total{kind="generate",outcome="ok"} 6.0
chorus_requests_total{kind="score",outcome="ok"} 8.0
chorus_queued_requests 0.0
chorus_prompt_rows_resident 120.0
"""
"""The example in docs/metrics.md: a real server's answer."""

FIRST_QUERIES = {
    "Does it take requests?": "chorus_ready",
    "How many answers a second?": "sum(rate(chorus_requests_total[5m])) by (outcome)",
    "How long do requests take?": (
        "histogram_quantile(0.99, sum(rate(chorus_request_seconds_bucket[5m])) by (le))"
    ),
    "Does it turn requests away?": "sum(rate(chorus_requests_refused_total[5m])) by (code)",
    "Are prompts evicted from the device?": "rate(chorus_prompt_evictions_total[5m])",
    "Does it train?": "chorus_tuning_running",
    "How many rows of jobs a second?": "sum(rate(chorus_jobs_rows_total[5m])) by (kind)",
    "How do runs of jobs end?": "sum(increase(chorus_jobs_runs_ended_total[1h])) by (kind, ending)",
}
"""What an operator watches first."""


ENDPOINT_PICKER = {
    "queued requests": ("queuedRequestsSpec", "chorus_queued_requests"),
    "running requests": ("runningRequestsSpec", "chorus_running_requests"),
    "use of the cache, 0 to 1": ("kvUsageSpec", "chorus_cache_usage"),
    "adapters, here tasks": ("loraSpec", "chorus_lora_requests_info"),
}
"""What the model server protocol of the Gateway API Inference Extension asks for, the key of the endpoint
picker's `engineConfigs` that names it, and the series."""


def metrics_page() -> str:
    """docs/metrics.md."""
    from chorus_server.api.metrics import Metrics

    lines = [
        "# Metrics",
        "",
        "To look at a server's figures, ask it for them:",
        "",
        "```console",
        *METRICS_EXAMPLE.splitlines(),
        "```",
        "",
        "`GET /metrics` answers in Prometheus's text format. If the server has a key, send that key or the",
        "scrape token (`scrape_token_file`). `docker compose up` starts Prometheus with alert rules, and",
        "Grafana with a dashboard, beside the server. To begin with, watch these:",
        "",
        "| question | query |",
        "| --- | --- |",
        *(f"| {question} | `{query}` |" for question, query in FIRST_QUERIES.items()),
        "",
        "A histogram `NAME` has the series `NAME_bucket`, `NAME_sum` and `NAME_count`. The first 50 tenants",
        "and the first 200 tasks and versions have series of their own; others count as `other`.",
        "",
        "## For gateways that choose a replica",
        "",
        "The endpoint picker of the Gateway API Inference Extension, and llm-d with it, read these. Its",
        "configuration names the series (`engineConfigs` of `core-metrics-extractor`):",
        "[deploy/kubernetes/endpoint-picker.yaml](../deploy/kubernetes/endpoint-picker.yaml).",
        "",
        "| what it asks for | key | series |",
        "| --- | --- | --- |",
        *(f"| {what} | `{key}` | `{series}` |" for what, (key, series) in ENDPOINT_PICKER.items()),
        "",
        "Names are `tenant/task`: the 64 used last whose prompts are on the device, and 64 that wait.",
        "`max_lora` is how many prompts of such lengths the device's table holds. Affinity is a hint: a",
        "prompt that a replica lacks is there in milliseconds. The picker asks every 50 ms unless told",
        "otherwise (`--refresh-metrics-interval=250ms`), and sends no key: a proxy must add the token.",
        "",
        "## All of them",
        "",
        "`python -m chorus_server.reference` generates everything below from the code.",
        "",
        "| name | kind | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for series in Metrics().registry.table:
        labels = ", ".join(f"`{label}`" for label in series.labels)
        lines.append(f"| `{series.name}` | {series.kind} | {labels} | {series.description} |")
    return "\n".join(lines) + "\n"


def openapi_page() -> str:
    """docs/openapi.json: the document of an application that does not serve yet."""
    from chorus_server.api.routes.document import openapi_document
    from chorus_server.app import build_app, close_app

    with tempfile.TemporaryDirectory() as folder:
        app = build_app(Settings(model="any", data_dir=Path(folder)))
        try:
            document: dict[str, Any] = openapi_document(app.api)
        finally:
            close_app(app)
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def tuning_page() -> str:
    """docs/tuning.md, with the fields of a job document between its markers."""
    return _with_tables("tuning.md", (JobDocument, PromptDocument, DataDocument, DataSource, Recipe))


def sweeps_page() -> str:
    """docs/sweeps.md, with the fields of a sweep between its markers."""
    return _with_tables("sweeps.md", (SweepDocument, ValueRange, Rung))


def evaluation_page() -> str:
    """docs/evaluation.md, with the fields of an evaluation's document between its markers."""
    return _with_tables("evaluation.md", (EvaluationDocument, EvaluationSubject, BaseSubject))


Bodies = Mapping[str, type[LenientBody]]


def openai_page() -> str:
    """docs/openai.md, with what becomes of every field of a body between its markers."""
    bodies: Bodies = {"completions": CompletionsBody, "chat": ChatBody, "responses": ResponsesBody}
    tuning: Bodies = {"job": FineTuningBody, "hyperparameters": Hyperparameters}
    return _with_parts("openai.md", {"fields": _fates(bodies), "fine-tuning": _fates(tuning)})


def _with_tables(name: str, models: tuple[type[DocumentModel], ...]) -> str:
    return _with_parts(name, {model.__name__: _fields(model) for model in models})


def _with_parts(name: str, parts: Mapping[str, str]) -> str:
    page = (DOCS / name).read_text(encoding="utf-8")
    for part, text in parts.items():
        begin, end = f"<!-- {part}: made by python -m chorus_server.reference -->\n", "<!-- end -->\n"
        before, _, rest = page.partition(begin)
        page = before + begin + text + end + rest.partition(end)[2]
    return page


def _fates(bodies: Bodies) -> str:
    """A table of the fields that bodies declare: what becomes of each, and what it does or why it is
    refused."""
    known = {body: {name: told for name, *told in fates(model)} for body, model in bodies.items()}
    lines = [f"| field | {' | '.join(bodies)} | |", "| --- |" + " --- |" * (len(bodies) + 1)]
    for name in dict.fromkeys(name for fields in known.values() for name in fields):
        cells = [fields[name][0] if name in fields else "" for fields in known.values()]
        texts = {body: fields[name][1] for body, fields in known.items() if name in fields}
        alike = len(set(texts.values())) == 1
        said = next(iter(texts.values())) if alike else " ".join(f"{body}: {texts[body]}" for body in texts)
        lines.append(f"| `{name}` | {' | '.join(cells)} | {said} |")
    return "\n".join(lines) + "\n"


def _fields(model: type[DocumentModel]) -> str:
    """A table of the fields that a model adds to its parent's."""
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


BESIDE = ("task", "data", "recipe")
"""Fields of a job document that are parameters of the client's method."""


def job_fields_module() -> str:
    """Types of the fields that the client passes on. They are generated because the client imports nothing of
    the server."""
    lines = [
        '"""The fields of a job document that `client.tuning.start` passes on.',
        "",
        "Made by `python -m chorus_server.reference`.",
        '"""',
        "",
        "from collections.abc import Mapping, Sequence",
        "from typing import Any, TypedDict",
        "",
        "",
        "class JobFields(TypedDict, total=False):",
        '    """docs/tuning.md has their bounds and defaults. A field that is None is left out."""',
    ]
    for name, field in JobDocument.model_fields.items():
        if name not in BESIDE:
            lines += [
                "",
                f"    {name}: {_written_type(field.annotation)} | None",
                *_docstring(field.description),
            ]
    return "\n".join(lines) + "\n"


def _docstring(text: str | None) -> Iterator[str]:
    lines = textwrap.wrap(f'"""{text}', 106)
    if len(lines[-1]) > 103:
        lines.append("")
    lines[-1] += '"""'
    return (f"    {line}" for line in lines)


def _written_type(kind: Any) -> str:
    """A field's type as a caller may write a value: any list, any object."""
    kind, _ = _bare(kind, [])
    if _is_union(kind):
        return " | ".join(_written_type(part) for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is tuple:
        return f"Sequence[{_written_type(get_args(kind)[0])}]"
    if get_origin(kind) is dict:
        return f"Mapping[{', '.join(map(_written_type, get_args(kind)))}]"
    if isinstance(kind, type) and issubclass(kind, DocumentModel):
        return "Mapping[str, Any]"
    if get_origin(kind) is Literal:
        return "str"
    return "Any" if kind is Any else str(kind.__name__)


GENERATED = {
    "docs/settings.md": settings_page,
    "docs/metrics.md": metrics_page,
    "docs/openapi.json": openapi_page,
    "docs/tuning.md": tuning_page,
    "docs/sweeps.md": sweeps_page,
    "docs/evaluation.md": evaluation_page,
    "docs/openai.md": openai_page,
    "clients/chorus/types/job_fields.py": job_fields_module,
}
"""Path in the repository, and the function that makes the content."""


def main() -> None:
    """Write every file."""
    for name, render in GENERATED.items():
        (ROOT / name).write_text(render(), encoding="utf-8")
        click.echo(name)


def _values(kind: Any, metadata: list[Any]) -> str:
    parts = [part for part in (get_args(kind) if _is_union(kind) else (kind,)) if part is not type(None)]
    first, metadata = _bare(parts[0], metadata)
    if get_origin(first) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(first))
    names = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`", Path: "path"}
    names[ShapeChoice] = "preset and parts"
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
    """A type without its annotations, which are added to `metadata`."""
    if get_origin(kind) is not Annotated:
        return kind, metadata
    bare, *own = get_args(kind)
    return bare, [*metadata, *(item for each in own for item in getattr(each, "metadata", [each]))]


if __name__ == "__main__":
    main()
