"""PEFT prompt-tuning adapters: `adapter_config.json` beside `adapter_model.safetensors`.

PEFT keeps `num_virtual_tokens * num_transformer_submodules` rows in one tensor, `prompt_embeddings`. For
seq2seq models it sets two submodules by default. But in prompt tuning both `forward` and `generate` take the
first `num_virtual_tokens` rows for the encoder and never look at the others (peft/peft_model.py,
`PeftModelForSeq2SeqLM`), so those first rows are the prompt.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from prompts_store.artifacts import sources
from prompts_store.artifacts.foreign import pickle_refusal, refuse_foreign
from prompts_store.artifacts.format import Format, ParsedFile
from prompts_store.artifacts.metadata import read_metadata
from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.artifacts.safetensors_format import (
    looks_like_safetensors,
    parse_safetensors,
    render_prompt,
)
from prompts_store.artifacts.strict_json import parse_object
from prompts_store.artifacts.tensors import check_shape
from prompts_store.artifacts.types import ArtifactLimits, PromptValues
from prompts_store.artifacts.zip_entries import first_name, is_zip, read_directory, read_entry
from prompts_store.records import PromptManifest
from prompts_store.text import shown

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PICKLE_NAME = "adapter_model.bin"
TENSOR_NAME = "prompt_embeddings"
# A real configuration has about 1 KiB; the rest is room for `prompt_tuning_init_text`.
MAX_CONFIG_BYTES = 64 * 1024

# Zip has no time zone, and its times begin here; a real time would make equal downloads differ.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_REGULAR_FILE = 0o100644 << 16

_WHAT = "The adapter_config.json"
_DEPTH = 8
_MAX_NAME_CHARACTERS = 256
_SEQ2SEQ = "SEQ_2_SEQ_LM"
_AT_REVISION = re.compile(r"([\w.\-]+/[\w.\-]+)@([\w.\-/]+)", re.ASCII)
_WHY_NOT = {
    "MULTITASK_PROMPT_TUNING": "each task multiplies its rows by a matrix; multiply one task's in and upload "
    "that as PROMPT_TUNING",
    "P_TUNING": "its rows are the output of an encoder; upload the encoder's output as PROMPT_TUNING",
    "PREFIX_TUNING": "it has keys and values for each layer, not rows of input",
}


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """The fields of the configuration that matter.

    Attributes:
        virtual_tokens: P.
        submodules: 1 or 2; None if the file leaves it to PEFT.
        token_dim: D, if the file gives it.
        base_model_name: `base_model_name_or_path`.
    """

    virtual_tokens: int
    submodules: int | None
    token_dim: int | None
    base_model_name: str | None


def parse_config(data: bytes) -> PeftConfig:
    """Parse an `adapter_config.json` of at most `MAX_CONFIG_BYTES`.

    Raises:
        ArtifactError: `peft_config_invalid`, `duplicate_key` or `peft_kind`.
    """
    if len(data) > MAX_CONFIG_BYTES:
        raise _invalid(f"has {len(data)} bytes; the limit is {MAX_CONFIG_BYTES}.")
    found = parse_object(data, what=_WHAT, reason=Reason.PEFT_CONFIG_INVALID, max_depth=_DEPTH)
    _check_kind(found.get("peft_type"))
    if found.get("task_type") not in (None, _SEQ2SEQ):
        raise _invalid(
            f"is for the task type {shown(found['task_type'])}; a prompt for T5 has {_SEQ2SEQ}.",
        )
    virtual_tokens = _positive(found, "num_virtual_tokens")
    if virtual_tokens is None:
        raise _invalid("lacks num_virtual_tokens, the prompt's length.")
    submodules = _positive(found, "num_transformer_submodules")
    if submodules not in (None, 1, 2):
        raise _invalid("has num_transformer_submodules other than 1 and 2.")
    name = found.get("base_model_name_or_path")
    return PeftConfig(
        virtual_tokens=virtual_tokens,
        submodules=submodules,
        token_dim=_positive(found, "token_dim"),
        base_model_name=name if is_model_name(name) else None,
    )


def prompt_rows(config: PeftConfig, shape: tuple[int, ...], limits: ArtifactLimits) -> tuple[int, list[str]]:
    """How many of the stored rows are the prompt, and a note if that is not all of them.

    Args:
        config: the adapter's configuration.
        shape: two dimensions, of `prompt_embeddings`.
        limits: the server's limits.

    Raises:
        ArtifactError: `peft_rows` if configuration and tensor disagree on rows, `peft_config_invalid` if on
            the width.
    """
    rows, width = shape
    if config.token_dim not in (None, width) and width == limits.width:
        raise _invalid("has a token_dim that differs from the number of columns of the adapter's tensor.")
    allowed = (1, 2) if config.submodules is None else (config.submodules,)
    if not any(rows == config.virtual_tokens * submodules for submodules in allowed):
        raise refusal(
            Reason.PEFT_ROWS,
            f"The adapter's tensor has {shown(rows)} rows; its configuration calls for "
            f"{config.virtual_tokens} x {' or '.join(map(str, allowed))} "
            "(num_virtual_tokens x num_transformer_submodules).",
        )
    if rows == config.virtual_tokens:
        return rows, []
    return config.virtual_tokens, [
        f"PEFT's second submodule ({rows - config.virtual_tokens} of {rows} rows), which PEFT never uses, "
        "was dropped."
    ]


def render_config(length: int, width: int, base_model_name: str | None) -> bytes:
    """An `adapter_config.json` that PEFT loads, with one submodule.

    Args:
        length: P.
        width: D.
        base_model_name: a hub id, which may end in `@revision`, or a folder, for PEFT's `AutoPeftModel`; None
            if unknown.
    """
    pinned = _AT_REVISION.fullmatch(base_model_name or "")
    fields = {
        "auto_mapping": None,
        "base_model_name_or_path": pinned[1] if pinned else base_model_name,
        "inference_mode": True,
        # PEFT takes the next two from the base model if they are null.
        "num_attention_heads": None,
        "num_layers": None,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": length,
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "revision": pinned[2] if pinned else None,
        "task_type": _SEQ2SEQ,
        "token_dim": width,
        "tokenizer_name_or_path": None,
    }
    return json.dumps(fields, indent=2, sort_keys=True).encode("utf-8") + b"\n"


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


def _check_kind(kind: Any) -> None:
    if kind == "PROMPT_TUNING":
        return
    if not isinstance(kind, str):
        raise _invalid("lacks peft_type.")
    why = _WHY_NOT.get(kind, "it changes the model rather than its input")
    raise refusal(
        Reason.PEFT_KIND, f"The adapter's kind is {shown(kind)}; only PROMPT_TUNING is a soft prompt: {why}."
    )


def is_model_name(value: Any) -> bool:
    """Whether a name can be shown to people. If not, it is ignored: a hint is no reason to refuse a file."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME_CHARACTERS and value.isprintable()


def _positive(found: dict[str, Any], name: str) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 < value < 2**31:
        raise _invalid(f"has {name} other than a positive whole number.")
    return value


def _invalid(problem: str) -> Exception:
    return refusal(Reason.PEFT_CONFIG_INVALID, f"{_WHAT} {problem}")


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
    tensor, texts = parse_safetensors(weights, tensor=TENSOR_NAME)
    check_shape(tensor.shape, limits, rows=config.virtual_tokens)
    rows, notes = prompt_rows(config, tensor.shape, limits)
    found = read_metadata(texts, limits)
    found = replace(
        found,
        metadata=replace(found.metadata, base_model_name=config.base_model_name),
        notes=(*notes, *found.notes),
    )
    return ParsedFile(tensor, found, rows)


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
