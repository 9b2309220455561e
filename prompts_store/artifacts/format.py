"""What a format of prompt files is to whoever reads and writes files. `registry` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from prompts_store.artifacts.metadata import FileMetadata
from prompts_store.artifacts.tensors import StoredTensor
from prompts_store.artifacts.types import ArtifactLimits, ArtifactMetadata, PromptValues
from prompts_store.records import PromptManifest


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """A prompt as its file describes it; the values are not looked at yet.

    Attributes:
        found: what the file says about the prompt.
        rows: P, where the tensor has more rows than the prompt.
    """

    tensor: StoredTensor
    found: FileMetadata = field(default_factory=lambda: FileMetadata(ArtifactMetadata()))
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format. Its name is its key in the registry.

    Attributes:
        noun: for errors.
        suffix: of a file's name.
        media_type: of a download.
        claims: whether a file says by its first bytes that it is one.
        parse: a file that claims so. ArtifactError.
        render: values, manifest and the base model's name as a file. The same arguments give the same bytes.
    """

    noun: str
    suffix: str
    media_type: str = "application/octet-stream"
    claims: Callable[[bytes], bool]
    parse: Callable[[bytes, ArtifactLimits], ParsedFile]
    render: Callable[[PromptValues, PromptManifest | None, str | None], bytes]
