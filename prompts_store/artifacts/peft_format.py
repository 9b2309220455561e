"""PEFT's adapters that are soft prompts: `adapter_config.json` beside `adapter_model.safetensors`.

PEFT keeps `num_virtual_tokens * num_transformer_submodules` rows in one tensor, `prompt_embeddings`. For
seq2seq models it sets two submodules by default. But in prompt tuning both `forward` and `generate` take the
first `num_virtual_tokens` rows for the encoder and never look at the others (peft/peft_model.py,
`PeftModelForSeq2SeqLM`), so those first rows are the prompt. P-tuning saves the same tensor, the output of
its encoder, and is used in the same way. Multitask prompt tuning saves two tensors more (`multitask`); only
its `forward` puts the second submodule's rows before the decoder's input.
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from prompts_store.artifacts import sources
from prompts_store.artifacts.foreign import pickle_refusal, refuse_foreign
from prompts_store.artifacts.format import Format, ParsedFile
from prompts_store.artifacts.metadata import read_metadata
from prompts_store.artifacts.multitask import TaskFactors
from prompts_store.artifacts.peft_config import (
    CONFIG_NAME,
    MAX_CONFIG_BYTES,
    MULTITASK,
    parse_config,
    prompt_rows,
    render_config,
)
from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.artifacts.safetensors_format import (
    looks_like_safetensors,
    parse_safetensors,
    render_prompt,
)
from prompts_store.artifacts.tensors import check_shape
from prompts_store.artifacts.types import ArtifactLimits, PromptValues
from prompts_store.artifacts.zip_entries import first_name, is_zip, read_directory, read_entry
from prompts_store.records import PromptManifest

WEIGHTS_NAME = "adapter_model.safetensors"
PICKLE_NAME = "adapter_model.bin"
TENSOR_NAME = "prompt_embeddings"
COLUMNS_NAME = "prefix_task_cols"
ROWS_NAME = "prefix_task_rows"

# Zip has no time zone, and its times begin here; a real time would make equal downloads differ.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_REGULAR_FILE = 0o100644 << 16


def parse_folder(path: Path, limits: ArtifactLimits) -> ParsedFile:
    """Read an adapter's folder. Only its two files are read. Raises ArtifactError."""
    with sources.open_folder(path) as folder:
        names = {name for name in (CONFIG_NAME, WEIGHTS_NAME, PICKLE_NAME) if sources.exists(name, folder)}
        _check_members(names)
        config = sources.read_file(CONFIG_NAME, max_bytes=MAX_CONFIG_BYTES, folder=folder)
        weights = sources.read_file(WEIGHTS_NAME, max_bytes=limits.max_bytes, folder=folder)
    return _parse_adapter(config, weights, limits)


def render_files(
    values: PromptValues, manifest: PromptManifest | None, base_model_name: str | None
) -> dict[str, bytes]:
    """The two files of an adapter, by name."""
    length, width = values.shape
    return {
        CONFIG_NAME: render_config(length, width, base_model_name),
        WEIGHTS_NAME: render_prompt(values, manifest, tensor=TENSOR_NAME),
    }


def _parse_zip(data: bytes, limits: ArtifactLimits) -> ParsedFile:
    # This is checked first because the reader of zips would only complain about torch's folders.
    if first_name(data).endswith(b"data.pkl"):
        raise pickle_refusal("The zip is a torch file; it")
    entries = read_directory(data)
    _check_members(set(entries))
    config = read_entry(data, entries[CONFIG_NAME], max_bytes=MAX_CONFIG_BYTES)
    weights = read_entry(data, entries[WEIGHTS_NAME], max_bytes=limits.max_bytes)
    return _parse_adapter(config, weights, limits)


def _parse_adapter(config_bytes: bytes, weights: bytes, limits: ArtifactLimits) -> ParsedFile:
    config = parse_config(config_bytes)
    if not looks_like_safetensors(weights):
        refuse_foreign(weights)
    several = config.kind == MULTITASK
    names = (TENSOR_NAME, COLUMNS_NAME, ROWS_NAME) if several else (TENSOR_NAME,)
    tensors, texts = parse_safetensors(weights, tensors=names)
    tensor = tensors[TENSOR_NAME]
    check_shape(tensor.shape, limits, rows=config.virtual_tokens)
    rows, notes = prompt_rows(config, tensor.shape, limits)
    tasks = None
    if several:
        tasks = TaskFactors(tensors[COLUMNS_NAME], tensors[ROWS_NAME])
        tasks.check(tensor.shape, tasks=config.tasks, ranks=config.ranks)
    found = read_metadata(texts, limits)
    found = replace(
        found,
        metadata=replace(found.metadata, base_model_name=config.base_model_name),
        notes=(*notes, *found.notes),
    )
    return ParsedFile(tensor, found, rows, tasks)


def _check_members(names: set[str]) -> None:
    """Raise unless both files of an adapter are there. Other files (README.md) are never read."""
    if CONFIG_NAME not in names:
        raise refusal(
            Reason.PEFT_CONFIG_MISSING,
            "A zip or folder is read as a PEFT adapter, and this one has no adapter_config.json. Upload a "
            "file of another format as it is.",
        )
    if WEIGHTS_NAME in names:
        return
    if PICKLE_NAME in names:
        raise refusal(
            Reason.PEFT_PICKLE,
            "adapter_model.bin is a pickle, which can run code when it is read. Load the adapter "
            "with PEFT and save it again with save_pretrained(FOLDER, safe_serialization=True).",
        )
    raise refusal(Reason.PEFT_WEIGHTS_MISSING, "The adapter has no adapter_model.safetensors; add it.")


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.create_system, entry.external_attr = 3, _REGULAR_FILE
            # Floats of a tuned prompt hardly compress; storing them also keeps the values aligned and in one
            # piece.
            archive.writestr(entry, content, compress_type=zipfile.ZIP_STORED)
    return buffer.getvalue()


PEFT = Format(
    noun="a zip of a PEFT prompt-tuning adapter",
    suffix=".zip",
    media_type="application/zip",
    claims=is_zip,
    parse=_parse_zip,
    render=lambda values, manifest, base_model_name: _zip(render_files(values, manifest, base_model_name)),
)
