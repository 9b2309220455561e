"""`/v1/tasks/{task}/versions`: uploading, showing, downloading."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chorus import saving
from chorus.artifacts import FORMATS, Format, Source, format_of, read_artifact
from chorus.errors import InvalidArgumentError
from chorus.methods import Method
from chorus.routes import references
from chorus.routes.paging import PAGE, every
from chorus.routes.tasks import get_page, promote, resolve, task_path
from chorus.types import Version, VersionPage
from chorus.wire import (
    Call,
    Request,
    Steps,
    Upload,
    creation,
    encode_json,
    model_of,
    nothing,
    query_of,
    without_none,
)


def push(
    task: str,
    artifact: Source,
    *,
    template: str | None = None,
    labels: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    base_fingerprint: str | None = None,
    task_index: int | None = None,
    lineage: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    description: str | None = None,
    promote_to: str | None = None,
) -> Steps[Version]:
    """Upload a prompt as the task's next version. If the same prompt with the same settings is there, that
    version is returned.

    The first version of a task gets the alias `live`. Later ones do not move it; promote them.

    Args:
        task: the task; it is created if it does not exist.
        artifact: a path (`.safetensors`, `.npy`, PEFT folder or zip), the bytes of such a file, or a `[P, D]`
            array of float32 or float64 with the buffer protocol.
        template: how the input's fields become text, as in `"hypothesis: {hypothesis} premise: {premise}"`.
        labels: the answers of a classification task, in order.
        settings: default settings of generation.
        base_fingerprint: fingerprint of the base model that the prompt was tuned on; the server checks it.
        task_index: which task's prompt to take of a PEFT adapter of several tasks, counted from 0.
        lineage: where it came from, in any form.
        metrics: values by name.
        description: description of the task.
        promote_to: an alias to point at the new version.
    """
    named = references.parse_whole(task)
    content = read_artifact(artifact)
    metadata = without_none(
        {
            "template": template,
            "labels": None if labels is None else list(labels),
            "settings": settings,
            "base_fingerprint": base_fingerprint,
            "task_index": task_index,
            "lineage": lineage,
            "metrics": metrics,
            "description": description,
        }
    )
    upload = Upload(content.filename, content.content, encode_json(metadata, "metadata").decode())
    path = task_path(named, "versions")
    request = creation(path, named.query, upload=upload)
    version = yield from Call(request, model_of(Version))
    if promote_to is None:
        return version
    yield from promote(task, version.version, promote_to)
    shown = yield from get(task, version.version)
    return shown.model_copy(update={"created": version.created, "notes": version.notes})


def list_versions(task: str, *, limit: int | None = None, cursor: str | None = None) -> Call[VersionPage]:
    """One page of a task's versions, newest first.

    Args:
        task: the task.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    named = references.parse_whole(task)
    query = named.query + query_of(limit=limit, cursor=cursor)
    return Call(get_page(task_path(named, "versions"), query), model_of(VersionPage))


def all_versions(task: str) -> Steps[list[Version]]:
    """Every version of a task, newest first; fetches page after page."""
    return (
        yield from every(
            lambda cursor: list_versions(task, limit=PAGE, cursor=cursor), lambda page: page.versions
        )
    )


def get(task: str, version: int | str | None = None) -> Steps[Version]:
    """One version.

    Args:
        task: the task; `task@3` or `task@alias` names a version.
        version: a number or an alias, if `task` names no version; default `live`.
    """
    number = yield from resolve(task, version)
    named = references.parse(task)
    return (
        yield from Call(get_page(task_path(named, "versions", str(number)), named.query), model_of(Version))
    )


def delete(task: str, version: int | str) -> Call[None]:
    """Delete one version. Its number is never used again.

    Raises:
        ConflictError: an alias or an ensemble names it.
    """
    named = references.parse_whole(task)
    path = task_path(named, "versions", str(references.version_number(version)))
    return Call(Request("DELETE", path, named.query), nothing)


def artifact(task: str, version: int | str | None = None, *, format: Format = "safetensors") -> Steps[bytes]:
    """Download a prompt.

    Args:
        task: the task; `task@3` or `task@alias` names a version.
        version: a number or an alias, if `task` names no version; default `live`.
        format: `safetensors`, `npy`, or `peft` (a zip).
    """
    if format not in FORMATS:
        raise InvalidArgumentError(
            f"{format!r} is not a format; choose one of {', '.join(FORMATS)}.", field="format"
        )
    number = yield from resolve(task, version)
    named = references.parse(task)
    path = task_path(named, "versions", str(number), "artifact")
    request = get_page(path, named.query + query_of(format=format))
    return (yield from Call(request, lambda answer: answer.content))


def pull(
    task: str,
    path: str | os.PathLike[str],
    *,
    version: int | str | None = None,
    format: Format | None = None,
) -> Steps[Path]:
    """Download a prompt to a file. The file appears whole or not at all, and replaces an existing one.

    Args:
        task: the task; `task@3` or `task@alias` names a version.
        path: the file; for `peft`, a `.zip` file or the folder to create.
        version: a number or an alias, if `task` names no version; default `live`.
        format: `safetensors`, `npy` or `peft`; by default what the path's ending says.
    """
    target = Path(path)
    format = format or format_of(target)
    saving.require_folder(target)
    content = yield from artifact(task, version, format=format)
    if format == "peft" and target.suffix != ".zip":
        return saving.write_peft_folder(target, content)
    return saving.write_file(target, content)


class VersionMethods:
    """The methods of `client.tasks` for versions."""

    push = Method(push)
    versions = Method(all_versions)
    versions_page = Method(list_versions)
    version = Method(get)
    delete_version = Method(delete)
    artifact = Method(artifact)
    pull = Method(pull)
