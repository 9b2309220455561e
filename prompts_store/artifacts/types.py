"""What reading an artifact needs to know, and what files say about themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ComputeDtype = Literal["float32", "bfloat16"]

PromptValues = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactLimits:
    """What a file must agree with so that this server can use it.

    Attributes:
        width: the base model's d_model D.
        max_length: the most rows P.
        compute_dtype: the type in which the model computes. A value that is finite in f32 may overflow in
            bf16.
        max_bytes: the largest file, and the largest file inside a zip. The default allows `[1024, 4096]` in
            f64.
        base_fingerprint: the base model's; a file that names another is refused. None accepts any.
    """

    width: int
    max_length: int
    compute_dtype: ComputeDtype = "float32"
    max_bytes: int = 33 * 2**20
    base_fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactMetadata:
    """What the file says about itself; None where it says nothing. What the uploader says overrides it.

    Attributes:
        template: input template, which has been parsed once.
        labels: these have been checked.
        settings: default generation settings; any JSON object, not validated here.
        base_fingerprint: fingerprint of the base model that the prompt was tuned on.
        base_model_name: PEFT's `base_model_name_or_path`; a hint for people, never trusted.
    """

    template: str | None = None
    labels: tuple[str, ...] | None = None
    settings: Mapping[str, Any] | None = None
    base_fingerprint: str | None = None
    base_model_name: str | None = None
