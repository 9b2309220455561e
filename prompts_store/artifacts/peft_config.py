"""`adapter_config.json`, the configuration of a PEFT adapter: what is read of it, and what is written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.artifacts.strict_json import parse_object
from prompts_store.artifacts.types import ArtifactLimits
from prompts_store.text import shown

CONFIG_NAME = "adapter_config.json"
# A real configuration has about 1 KiB; the rest is room for `prompt_tuning_init_text`.
MAX_CONFIG_BYTES = 64 * 1024
MULTITASK = "MULTITASK_PROMPT_TUNING"
SOFT_PROMPTS = ("PROMPT_TUNING", "P_TUNING", MULTITASK)
"""The kinds that come to rows before the input."""

_WHAT = "The adapter_config.json"
_DEPTH = 8
_MAX_NAME_CHARACTERS = 256
_SEQ2SEQ = "SEQ_2_SEQ_LM"
_AT_REVISION = re.compile(r"([\w.\-]+/[\w.\-]+)@([\w.\-/]+)", re.ASCII)
_WHY_NOT = {
    "PREFIX_TUNING": "it has keys and values for each layer, not rows of input",
}


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """The fields of the configuration that matter.

    Attributes:
        kind: one of `SOFT_PROMPTS`.
        virtual_tokens: P.
        submodules: 1 or 2; None if the file leaves it to PEFT.
        token_dim: D, if the file gives it.
        base_model_name: `base_model_name_or_path`.
        tasks: T, if it is of several tasks and the file gives it.
        ranks: K, likewise.
    """

    kind: str
    virtual_tokens: int
    submodules: int | None
    token_dim: int | None
    base_model_name: str | None
    tasks: int | None
    ranks: int | None


def parse_config(data: bytes) -> PeftConfig:
    """Parse an `adapter_config.json` of at most `MAX_CONFIG_BYTES`.

    Raises:
        ArtifactError: `peft_config_invalid`, `duplicate_key` or `peft_kind`.
    """
    if len(data) > MAX_CONFIG_BYTES:
        raise _invalid(f"has {len(data)} bytes; the limit is {MAX_CONFIG_BYTES}.")
    found = parse_object(data, what=_WHAT, reason=Reason.PEFT_CONFIG_INVALID, max_depth=_DEPTH)
    kind = _soft_prompt(found.get("peft_type"))
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
        kind=kind,
        virtual_tokens=virtual_tokens,
        submodules=submodules,
        token_dim=_positive(found, "token_dim"),
        base_model_name=name if is_model_name(name) else None,
        tasks=_positive(found, "num_tasks"),
        ranks=_positive(found, "num_ranks"),
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
    # With several tasks, PEFT's `forward` puts them before the decoder's input, but its `generate` does not.
    unused = "PEFT's generate does not use" if config.kind == MULTITASK else "PEFT never uses"
    dropped = f"{rows - config.virtual_tokens} of {rows} rows"
    return config.virtual_tokens, [f"PEFT's second submodule ({dropped}), which {unused}, was dropped."]


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


def _soft_prompt(kind: Any) -> str:
    if not isinstance(kind, str):
        raise _invalid("lacks peft_type.")
    if kind in SOFT_PROMPTS:
        return kind
    why = _WHY_NOT.get(kind, "it changes the model rather than its input")
    *others, last = SOFT_PROMPTS
    raise refusal(
        Reason.PEFT_KIND,
        f"The adapter's kind is {shown(kind)}; only {', '.join(others)} and {last} are soft prompts: {why}.",
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
