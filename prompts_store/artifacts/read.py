"""Reading an artifact of any format. Every prompt that somebody else made comes in this way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prompts_store.artifacts import sources
from prompts_store.artifacts.format import ParsedFile
from prompts_store.artifacts.metadata import check_digest
from prompts_store.artifacts.multitask import no_such_task
from prompts_store.artifacts.peft_format import parse_folder
from prompts_store.artifacts.registry import FORMATS, ArtifactFormat, format_of
from prompts_store.artifacts.tensors import read_values
from prompts_store.artifacts.types import ArtifactLimits, ArtifactMetadata, PromptValues
from prompts_store.digests import prompt_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A prompt that passed every check.

    Attributes:
        values: `[P, D]` f32, C-contiguous and read-only; all are finite, also after the cast to the compute
            dtype.
        digest: digest of `values`.
        format: the file's format.
        task_index: which task's prompt it is, if the file is of several tasks.
        notes: a sentence for each thing that was converted or dropped.
        metadata: what the file says about itself.
    """

    values: PromptValues
    digest: str
    format: ArtifactFormat
    task_index: int | None = None
    notes: tuple[str, ...] = ()
    metadata: ArtifactMetadata = field(default_factory=ArtifactMetadata)


def read_artifact(source: bytes | Path, *, limits: ArtifactLimits, task_index: int | None = None) -> Artifact:
    """Read a checked prompt from a file.

    Args:
        source: the file's bytes, or the path of a file or of a PEFT folder.
        limits: what the prompt must agree with.
        task_index: which task's prompt to make, counted from 0, if the file holds those of several tasks.

    Returns:
        Values that are safe to serve, and what the file says about them.

    Raises:
        ArtifactError: the file is not a prompt for this server; `code` is one of `REASONS`. No other error is
            raised, whatever the bytes are.
    """
    if isinstance(source, Path):
        if sources.is_folder(source):
            return _finish("peft", parse_folder(source, limits), limits, task_index)
        source = sources.read_file(source, max_bytes=limits.max_bytes)
    if len(source) > limits.max_bytes:
        raise sources.too_large(len(source), limits.max_bytes)
    format = format_of(source)
    return _finish(format, FORMATS[format].parse(source, limits), limits, task_index)


def _finish(
    format: ArtifactFormat, parsed: ParsedFile, limits: ArtifactLimits, task_index: int | None
) -> Artifact:
    found, tasks = parsed.found, parsed.tasks
    factor = None
    if tasks is not None:
        task_index = tasks.chosen(task_index)
        factor = tasks.factor(task_index, rows=parsed.rows)
    elif task_index is not None:
        raise no_such_task(task_index, 1)
    values, notes = read_values(parsed.tensor, limits, rows=parsed.rows, factor=factor)
    digest = prompt_digest(values)
    check_digest(found.digest, digest)
    return Artifact(
        values=values,
        digest=digest,
        format=format,
        task_index=task_index,
        notes=(*notes, *found.notes),
        metadata=found.metadata,
    )
