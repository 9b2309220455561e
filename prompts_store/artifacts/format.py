"""What code that reads and writes files needs to know about a format. `registry` lists the formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from prompts_store.artifacts.metadata import FileMetadata
from prompts_store.artifacts.multitask import TaskFactors
from prompts_store.artifacts.tensors import StoredTensor
from prompts_store.artifacts.types import ArtifactLimits, ArtifactMetadata, PromptValues
from prompts_store.records import PromptManifest


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """A prompt as its file describes it; its values have not been checked yet.

    Attributes:
        found: what the file says about the prompt.
        rows: P, if the tensor has more rows than the prompt.
        tasks: what makes a prompt of the rows for each of several tasks, if the file holds several.
    """

    tensor: StoredTensor
    found: FileMetadata = field(default_factory=lambda: FileMetadata(ArtifactMetadata()))
    rows: int | None = None
    tasks: TaskFactors | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format. Its name is its key in the registry.

    Attributes:
        noun: its name in error messages.
        suffix: ending of a file's name.
        media_type: Content-Type of a download.
        claims: whether a file's first bytes say that it has this format.
        parse: reads a file that claims the format. Raises ArtifactError.
        render: makes a file of values, manifest and the base model's name. The same arguments give the same
            bytes.
    """

    noun: str
    suffix: str
    media_type: str = "application/octet-stream"
    claims: Callable[[bytes], bool]
    parse: Callable[[bytes, ArtifactLimits], ParsedFile]
    render: Callable[[PromptValues, PromptManifest | None, str | None], bytes]
