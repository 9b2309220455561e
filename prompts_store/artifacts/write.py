"""Writing an artifact: the bytes of a download, or a PEFT folder on disk. The same arguments give the same
bytes."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from prompts_store.artifacts import peft_format
from prompts_store.artifacts.metadata import render_metadata
from prompts_store.artifacts.npy_format import render_npy
from prompts_store.artifacts.read import PROMPT_TENSOR
from prompts_store.artifacts.safetensors_format import MAX_HEADER_BYTES, render_header, render_safetensors
from prompts_store.artifacts.types import ArtifactFormat, PromptValues
from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest

# Zip has no time zone and begins here; a real time would make equal downloads differ.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_REGULAR_FILE = 0o100644 << 16


def write_artifact(
    values: np.ndarray[Any, Any],
    format: ArtifactFormat,
    *,
    manifest: PromptManifest | None = None,
    base_model_name: str | None = None,
) -> bytes:
    """A prompt as a file that `read_artifact` reads to the same bits.

    Args:
        values: `[P, D]` f32, at least one value.
        format: `peft` is a zip of the two files of an adapter.
        manifest: template, labels, settings and base go into safetensors and PEFT files; `.npy` has no place
            for them. Parts that do not fit the 16 KiB header are left out, and named there.
        base_model_name: hub id or folder of the base model, for PEFT.

    Raises:
        ValueError: the values are no prompt, or not the manifest's.
    """
    values = _checked(values, manifest)
    match format:
        case "safetensors":
            return _safetensors(values, PROMPT_TENSOR, manifest)
        case "npy":
            return render_npy(values)
        case "peft":
            return _zip(peft_files(values, manifest=manifest, base_model_name=base_model_name))
    assert_never(format)


def peft_files(
    values: np.ndarray[Any, Any],
    *,
    manifest: PromptManifest | None = None,
    base_model_name: str | None = None,
) -> dict[str, bytes]:
    """The files of a PEFT adapter by name; arguments and errors as for `write_artifact`."""
    values = _checked(values, manifest)
    length, width = values.shape
    return {
        peft_format.CONFIG_NAME: peft_format.render_config(length, width, base_model_name),
        peft_format.WEIGHTS_NAME: _safetensors(values, peft_format.TENSOR_NAME, manifest),
    }


def write_peft_folder(
    folder: Path,
    values: np.ndarray[Any, Any],
    *,
    manifest: PromptManifest | None = None,
    base_model_name: str | None = None,
) -> None:
    """A new folder that `PeftModel.from_pretrained` loads; whole or not there.

    Raises:
        FileExistsError: there is something at `folder` already.
        OSError: the disk said no; nothing is left behind.
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
        raise ValueError("the manifest is another prompt's: its digest is not these values'")
    return values.astype(np.float32, copy=False)


def _safetensors(values: PromptValues, tensor: str, manifest: PromptManifest | None) -> bytes:
    metadata = render_metadata(
        manifest,
        lambda texts: len(render_header(values.shape, tensor=tensor, metadata=texts)) <= MAX_HEADER_BYTES,
    )
    return render_safetensors(values, tensor=tensor, metadata=metadata)


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.create_system, entry.external_attr = 3, _REGULAR_FILE
            # Floats of a tuned prompt hardly compress; storing also keeps the values aligned with nothing
            # between.
            archive.writestr(entry, content, compress_type=zipfile.ZIP_STORED)
    return buffer.getvalue()
