"""`POST /v1/tasks/{task}/versions`: a prompt comes in, is checked whole, and becomes a version or nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from chorus_server.api.door.auth import MayWrite
from chorus_server.api.door.once import Once
from chorus_server.api.door.upload_route import UploadRoute
from chorus_server.api.http.bodies import media_type, read_body
from chorus_server.api.http.json_body import parse_json
from chorus_server.api.http.json_counts import Counts
from chorus_server.api.http.multipart import read_multipart
from chorus_server.api.http.parameters import TaskName, TenantName, owner_of_task
from chorus_server.api.http.responses import CREATION_ERRORS
from chorus_server.api.inference.answers import json_response
from chorus_server.api.inference.sampling import check_default_settings
from chorus_server.api.inference.servable import faults
from chorus_server.api.names_of_bases import base_note
from chorus_server.api.records import version_json
from chorus_server.api.schemas.prompts import UploadMetadata, VersionAnswer
from chorus_server.api.services import Services, acting_store, services_of, share_of
from chorus_server.errors import ChorusError, InvalidInputError, ModelMismatchError
from chorus_server.model.vocabulary import CONTROL_NAME
from chorus_server.validation import validation_error
from prompts_store.artifacts import TASK_INDEX, Artifact, ArtifactLimits, read_artifact
from prompts_store.errors import StoreError
from prompts_store.records import BASE_MODEL_NAME, PromptManifest, Published
from prompts_store.store import PromptStore
from prompts_store.tasks.labels import MAX_LABELS, check_labels

router = APIRouter(route_class=UploadRoute, tags=["versions"])

_COUNTS = Counts({"": 1024, "labels": MAX_LABELS, "metrics": 1024}, others=1 << 17)
"""Most bytes of metadata. Lineage is free-form, and the store bounds its size."""

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": _BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "metadata": {
                            "type": "string",
                            "description": "JSON with the same names as the query.",
                        },
                    },
                }
            },
        },
    }
}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file and what its sender says about it, in a form or in the query."""

    file: bytearray
    metadata: UploadMetadata
    form: bool = False

    def digests(self) -> tuple[str, str]:
        """SHA-256 (hex) of the file and of what is said of it."""
        said = self.metadata.model_dump_json().encode()
        return hashlib.sha256(self.file).hexdigest(), hashlib.sha256(said).hexdigest()

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Inside the block, errors name where the sender said the thing: the query, the form's metadata, or
        the file."""
        try:
            yield
        except (ChorusError, StoreError) as error:
            name, dot, rest = (error.field or "").partition(".")
            if name in UploadMetadata.model_fields:
                if getattr(self.metadata, name) is None:
                    error.field = "file"
                elif self.form:
                    error.field = f"metadata.{error.field}"
                elif name == "labels":
                    error.field = f"label{dot}{rest}"
            raise


@router.post(
    "/v1/tasks/{task}/versions",
    status_code=201,
    response_model=VersionAnswer,
    responses={**CREATION_ERRORS, 200: {"model": VersionAnswer, "description": "It was there already."}},
    openapi_extra=_BODY,
)
async def upload(
    request: Request,
    principal: MayWrite,
    task: TaskName,
    once: Once,
    template: Annotated[str | None, Query(max_length=16_384, description="Input template.")] = None,
    label: Annotated[list[str] | None, Query(description="Repeat for each label, in order.")] = None,
    settings: Annotated[str | None, Query(max_length=16_384, description="JSON object.")] = None,
    base_fingerprint: Annotated[str | None, Query(max_length=128)] = None,
    task_index: Annotated[
        int | None, Query(ge=0, le=2_147_483_647, description="Of a multitask PEFT adapter, from 0.")
    ] = None,
    lineage: Annotated[str | None, Query(max_length=65_536, description="JSON object.")] = None,
    metrics: Annotated[str | None, Query(max_length=65_536, description="JSON object of numbers.")] = None,
    description: Annotated[str | None, Query(max_length=4096, description="Description of the task.")] = None,
    tenant: TenantName = None,
) -> Response:
    """Upload a prompt: safetensors, `.npy` or PEFT, raw or in a form.

    The first version of a task gets `@live`.
    """
    services = services_of(request)
    owner = owner_of_task(principal, tenant, task)
    query = {
        "template": template,
        "labels": label,
        "settings": _json_object(settings, "settings"),
        "base_fingerprint": base_fingerprint,
        "task_index": task_index,
        "lineage": _json_object(lineage, "lineage"),
        "metrics": _json_object(metrics, "metrics"),
        "description": description,
    }
    library = services.library
    if await once.known() is None:  # one that comes again may find its tenant full of what it made
        await library.read(library.store.check_version_room, owner, task)
    sent = await _read(request, {name: value for name, value in query.items() if value is not None})
    if once.keyed:
        once.including(*await asyncio.to_thread(sent.digests), whole=True)
    with sent.naming():
        limits = artifact_limits(services, sent.metadata)
        published, notes, aliases = await once.made(
            lambda: library.write(
                _publish, services, acting_store(request), owner, principal.name, task, sent, limits
            ),
            lambda made: library.read(_made_before, library.store, owner, made),
        )
    answer = version_json(published.version, aliases)
    answer |= {"created": published.created, "notes": notes}
    return json_response(answer, 201 if published.created else 200)


def artifact_limits(services: Services, metadata: UploadMetadata) -> ArtifactLimits:
    """What a prompt must agree with. Raises ModelMismatchError if its sender names another base."""
    base = services.base()
    stated = metadata.base_fingerprint
    if stated is not None and stated != base.fingerprint:
        raise ModelMismatchError(
            f"The prompt belongs to another base model than this server's, {base.fingerprint}: upload one "
            "that was made for it.",
            field="base_fingerprint",
        )
    return ArtifactLimits(
        width=base.width,
        max_length=services.max_prompt_rows(),
        compute_dtype="bfloat16" if base.compute_dtype == "bfloat16" else "float32",
        max_bytes=services.settings.max_upload_bytes,
        base_fingerprint=base.fingerprint,
    )


def _publish(
    services: Services,
    store: PromptStore,
    tenant: str,
    name: str,
    task: str,
    sent: Upload,
    limits: ArtifactLimits,
) -> tuple[Published, list[str], dict[str, int]]:
    """Read, check and publish the prompt. Runs on a thread of the store."""
    artifact = read_artifact(bytes(sent.file), limits=limits, task_index=sent.metadata.task_index)
    said, found = sent.metadata, artifact.metadata
    settings = said.settings if said.settings is not None else dict(found.settings or {})
    check_default_settings(settings)
    notes, base = list(artifact.notes), said.base_fingerprint or found.base_fingerprint
    if base is None:
        base = limits.base_fingerprint
        notes.append(base_note(found.base_model_name, services.base().name))
    manifest = PromptManifest(
        digest=artifact.digest,
        length=int(artifact.values.shape[0]),
        width=int(artifact.values.shape[1]),
        base_fingerprint=base,
    )
    template = said.template if said.template is not None else found.template
    labels = said.labels if said.labels is not None else found.labels
    manifest = replace(
        manifest,
        template=template if template is not None else manifest.template,
        labels=tuple(labels or ()),
        settings=settings,
    )
    if CONTROL_NAME.search(manifest.template):
        notes.append(
            "The template names a control token such as </s> or <extra_id_0>: it is spelled out like any "
            "other text."
        )
    notes += _unservable(services, manifest)
    published = store.publish(
        tenant,
        task,
        artifact.values,
        manifest,
        created_by=name,
        lineage={"format": artifact.format, **_known(artifact), **(said.lineage or {})},
        metrics=said.metrics,
        description=said.description,
    )
    return published, notes, store.aliases(tenant, task)


def _made_before(store: PromptStore, tenant: str, made: str) -> tuple[Published, list[str], dict[str, int]]:
    """The same of a version that the request made when it came before."""
    task, _, number = made.rpartition("@")
    version = store.get_version(tenant, task, int(number))
    return Published(version, created=False), [], store.aliases(tenant, task)


def _unservable(services: Services, manifest: PromptManifest) -> list[str]:
    """Notes on what this server cannot serve with its settings. Raises InvalidInputError for what no server
    can."""
    check_labels(manifest.labels)
    found = faults(
        services,
        rows=manifest.length,
        template=manifest.template,
        labels=manifest.labels,
        settings=manifest.settings,
    )
    if found and not found[0].here:
        raise InvalidInputError(found[0].message, field=found[0].field)
    return [fault.message for fault in found]


def _known(artifact: Artifact) -> dict[str, Any]:
    """What the file tells of where it comes from."""
    known = {BASE_MODEL_NAME: artifact.metadata.base_model_name, TASK_INDEX: artifact.task_index}
    return {name: value for name, value in known.items() if value is not None}


async def _read(request: Request, query: dict[str, Any]) -> Upload:
    services, share = services_of(request), share_of(request)
    limit = services.settings.max_upload_bytes
    kind = media_type(request)
    if kind == "multipart/form-data":
        if query:
            raise InvalidInputError(
                "A form gives everything in its metadata part: remove the query.", field=next(iter(query))
            )
        parts = await read_multipart(request, ("file", "metadata"), limit, share)
        metadata = await services.text.run(_said, parts.get("metadata", b"{}"))
        return Upload(parts["file"], metadata, form=True)
    if kind not in ("application/octet-stream", "application/zip"):
        raise InvalidInputError(
            "Send the prompt with 'Content-Type: application/octet-stream', or in a multipart form.",
            field="content-type",
            code="unsupported_media_type",
        )
    body = await read_body(request, limit, share)
    if not body:
        raise InvalidInputError("The body is empty: send the prompt's file.", field="file", code="empty_file")
    return Upload(body, _metadata(query, ""))


def _said(metadata: bytes | bytearray) -> UploadMetadata:
    """The metadata of a form. Runs on a thread, because it may be as long as an upload."""
    return _metadata(parse_json(metadata, "metadata", _COUNTS), "metadata")


def _metadata(value: Any, field: str) -> UploadMetadata:
    try:
        return UploadMetadata.model_validate(value)
    except ValidationError as error:
        problem = validation_error(error)
        inner = problem.field or ""
        path = ".".join(part for part in (field, inner if inner != "body" else "") if part)
        raise InvalidInputError(problem.message, field=path or "metadata", code=problem.code) from None


def _json_object(text: str | None, field: str) -> Any:
    return None if text is None else parse_json(text.encode("utf-8", "surrogatepass"), field, _COUNTS)
