"""What goes into reading an artifact and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ArtifactFormat = Literal["safetensors", "npy", "peft"]
ComputeDtype = Literal["float32", "bfloat16"]

FORMATS: tuple[ArtifactFormat, ...] = ("safetensors", "npy", "peft")

PromptValues = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactLimits:
    """What a file must agree with to be of use to this server.

    Attributes:
        width: the base model's d_model D.
        max_length: most rows P.
        compute_dtype: what the model computes in; a value that is finite in f32 may overflow in bf16.
        max_bytes: largest file, and largest file inside a zip. The default holds `[1024, 4096]` in f64.
        base_fingerprint: of the base model, to refuse a file that names another; None to accept any.
    """

    width: int
    max_length: int
    compute_dtype: ComputeDtype = "float32"
    max_bytes: int = 33 * 2**20
    base_fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactMetadata:
    """What the file says about itself; None where it says nothing. The uploader's own word goes before it.

    Attributes:
        template: input template, parsed once already.
        labels: checked already.
        settings: default generation settings, any JSON object; not validated here.
        base_fingerprint: of the base model that the prompt was tuned on.
        base_model_name: PEFT's `base_model_name_or_path`; a hint for people, never trusted.
    """

    template: str | None = None
    labels: tuple[str, ...] | None = None
    settings: Mapping[str, Any] | None = None
    base_fingerprint: str | None = None
    base_model_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A prompt that passed every check.

    Attributes:
        values: `[P, D]` f32, C-contiguous, read-only, all finite, also after the cast to the compute dtype.
        digest: of `values`.
        format: what the file was.
        notes: a sentence for each thing that was converted or left out.
        metadata: what the file says about itself.
    """

    values: PromptValues
    digest: str
    format: ArtifactFormat
    notes: tuple[str, ...] = ()
    metadata: ArtifactMetadata = field(default_factory=ArtifactMetadata)
