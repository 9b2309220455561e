"""Writing an artifact: the bytes of a download, or a PEFT folder on disk. The same arguments give the same
bytes."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from prompts_store.artifacts.peft_format import render_files
from prompts_store.artifacts.registry import FORMATS, ArtifactFormat
from prompts_store.artifacts.types import PromptValues
from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest


def write_artifact(
    values: np.ndarray[Any, Any],
    format: ArtifactFormat,
    *,
    manifest: PromptManifest | None = None,
    base_model_name: str | None = None,
) -> bytes:
    """Make a file of a prompt. `read_artifact` reads it back to the same bits.

    Args:
        values: `[P, D]` f32 with at least one value.
        format: `peft` is a zip of an adapter's two files.
        manifest: template, labels, settings and base go into safetensors and PEFT files; `.npy` has no place
            for them. Parts that do not fit the 16 KiB header are left out and named in it.
        base_model_name: hub id or folder of the base model, for PEFT.

    Raises:
        ValueError: the values are not a prompt, or not the manifest's.
    """
    return FORMATS[format].render(_checked(values, manifest), manifest, base_model_name)


def peft_files(
    values: np.ndarray[Any, Any],
    *,
    manifest: PromptManifest | None = None,
    base_model_name: str | None = None,
) -> dict[str, bytes]:
    """The files of a PEFT adapter, by name. Arguments and errors are those of `write_artifact`."""
    return render_files(_checked(values, manifest), manifest, base_model_name)


def write_peft_folder(
    folder: Path,
    values: np.ndarray[Any, Any],
    *,
    manifest: PromptManifest | None = None,
    base_model_name: str | None = None,
) -> None:
    """Write a new folder that `PeftModel.from_pretrained` loads. It appears whole or not at all.

    Raises:
        FileExistsError: `folder` exists already.
        OSError: the disk failed; nothing is left behind.
    """
    files = peft_files(values, manifest=manifest, base_model_name=base_model_name)
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(f"{folder} exists already; choose another folder or remove it first")
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in files.items():
            with (temporary / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _checked(values: np.ndarray[Any, Any], manifest: PromptManifest | None) -> PromptValues:
    if values.ndim != 2 or values.size == 0 or values.dtype.newbyteorder("=") != np.float32:
        raise ValueError(f"a prompt is a [P, D] float32 array, not {values.dtype} with shape {values.shape}")
    if manifest is not None and manifest.digest != prompt_digest(values):
        raise ValueError("the manifest belongs to another prompt: its digest is not that of these values")
    return values.astype(np.float32, copy=False)
