"""Reading an artifact, whatever its format: the one door for prompts that somebody else made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prompts_store.artifacts import peft_format, sources
from prompts_store.artifacts.metadata import FileMetadata, check_digest, read_metadata
from prompts_store.artifacts.npy_format import parse_npy
from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.artifacts.safetensors_format import looks_like_safetensors, parse_safetensors
from prompts_store.artifacts.sniff import container_of, refuse_foreign, refuse_known_zips
from prompts_store.artifacts.tensors import StoredTensor, check_shape, read_values
from prompts_store.artifacts.types import Artifact, ArtifactFormat, ArtifactLimits, ArtifactMetadata
from prompts_store.artifacts.zip_entries import read_directory, read_entry
from prompts_store.digests import prompt_digest

PROMPT_TENSOR = "prompt"


def read_artifact(source: bytes | Path, *, limits: ArtifactLimits) -> Artifact:
    """A checked prompt out of a file.

    Args:
        source: the file's bytes; or the path of a file or of a PEFT folder.
        limits: what the prompt must agree with.

    Returns:
        Values that are safe to serve, and what the file says about them.

    Raises:
        ArtifactError: the file is not a prompt for this server; `code` is one of `REASONS`. Nothing else is
            raised, whatever the bytes.
    """
    if isinstance(source, Path):
        if sources.is_folder(source):
            return _read_folder(source, limits)
        source = sources.read_file(source, max_bytes=limits.max_bytes)
    if len(source) > limits.max_bytes:
        raise sources.too_large(len(source), limits.max_bytes)
    match container_of(source):
        case "safetensors":
            tensor, texts = parse_safetensors(source, tensor=PROMPT_TENSOR)
            return _finish(tensor, "safetensors", limits, read_metadata(texts, limits))
        case "npy":
            return _finish(parse_npy(source), "npy", limits, FileMetadata(ArtifactMetadata()))
        case "zip":
            return _read_zip(source, limits)


def _finish(
    tensor: StoredTensor,
    format: ArtifactFormat,
    limits: ArtifactLimits,
    found: FileMetadata,
    *,
    rows: int | None = None,
) -> Artifact:
    values, notes = read_values(tensor, limits, rows=rows)
    digest = prompt_digest(values)
    check_digest(found.digest, digest)
    return Artifact(
        values=values, digest=digest, format=format, notes=(*notes, *found.notes), metadata=found.metadata
    )


def _read_zip(data: bytes, limits: ArtifactLimits) -> Artifact:
    refuse_known_zips(data)
    entries = read_directory(data)
    _check_members(set(entries))
    config = read_entry(data, entries[peft_format.CONFIG_NAME], max_bytes=peft_format.MAX_CONFIG_BYTES)
    weights = read_entry(data, entries[peft_format.WEIGHTS_NAME], max_bytes=limits.max_bytes)
    return _read_peft(config, weights, limits)


def _read_folder(path: Path, limits: ArtifactLimits) -> Artifact:
    with sources.open_folder(path) as folder:
        names = {name for name in _PEFT_NAMES if sources.exists(name, folder)}
        _check_members(names)
        config = sources.read_file(
            peft_format.CONFIG_NAME, max_bytes=peft_format.MAX_CONFIG_BYTES, folder=folder
        )
        weights = sources.read_file(peft_format.WEIGHTS_NAME, max_bytes=limits.max_bytes, folder=folder)
    return _read_peft(config, weights, limits)


_PEFT_NAMES = (peft_format.CONFIG_NAME, peft_format.WEIGHTS_NAME, peft_format.PICKLE_NAME)


def _read_peft(config_bytes: bytes, weights: bytes, limits: ArtifactLimits) -> Artifact:
    config = peft_format.parse_config(config_bytes)
    if not looks_like_safetensors(weights):
        refuse_foreign(weights)
    tensor, texts = parse_safetensors(weights, tensor=peft_format.TENSOR_NAME)
    check_shape(tensor.shape, limits, rows=config.virtual_tokens)
    rows, notes = peft_format.prompt_rows(config, tensor.shape, limits)
    found = read_metadata(texts, limits)
    found = replace(
        found,
        metadata=replace(found.metadata, base_model_name=config.base_model_name),
        notes=(*notes, *found.notes),
    )
    return _finish(tensor, "peft", limits, found, rows=rows)


def _check_members(names: set[str]) -> None:
    """Raise unless both files of an adapter are there; others (README.md) are never read."""
    if peft_format.CONFIG_NAME not in names:
        raise refusal(
            Reason.PEFT_CONFIG_MISSING,
            "A zip or folder is read as a PEFT adapter, and this one has no adapter_config.json. Upload a "
            ".safetensors or .npy file as it is.",
        )
    if peft_format.WEIGHTS_NAME in names:
        return
    if peft_format.PICKLE_NAME in names:
        raise refusal(
            Reason.PEFT_PICKLE,
            "adapter_model.bin is a pickle, which can run code when read, so it never is. Load the adapter "
            "with PEFT and save it again with save_pretrained(FOLDER, safe_serialization=True).",
        )
    raise refusal(Reason.PEFT_WEIGHTS_MISSING, "The adapter has no adapter_model.safetensors; add it.")
