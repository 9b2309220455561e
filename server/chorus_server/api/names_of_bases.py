"""Names of base models, as PEFT adapters give them. Only a fingerprint proves which model a prompt was tuned
on. A name is shown, compared and passed on."""

from __future__ import annotations

import re

from chorus_server.api.services import BaseModelInfo
from prompts_store.artifacts import is_model_name
from prompts_store.records import BASE_MODEL_NAME, PromptVersion
from prompts_store.text import shown

# A folder in huggingface_hub's cache contains the id of its model.
_CACHED = re.compile(r"models--([^/\\]+)--([^/\\]+)")


def base_note(named: str | None, served: str) -> str:
    """The note for an upload that gives no fingerprint.

    Args:
        named: the base model's name in the file, if it has one.
        served: the name of the model that this server runs.
    """
    if named is None:
        return "The upload names no base model: recorded as the one that this server runs."
    if may_be_one(named, served):
        return (
            f"The file names its base model {shown(named)} and gives no fingerprint: recorded as the one "
            "that this server runs, which has that name."
        )
    return (
        f"Warning: the file names its base model {shown(named)}, and this server runs {shown(served)}. Names "
        "prove nothing, so the prompt was taken and recorded for this server's model; if it was tuned on "
        "another one, its answers are meaningless."
    )


def may_be_one(one: str, other: str) -> bool:
    """Whether two names may mean the same model. Hub ids are compared as a whole, ignoring case; a path or a
    bare name by its last part."""
    left, right = _parts(one), _parts(other)
    whole = len(left) == len(right) == 2
    return left == right if whole else left[-1:] == right[-1:]


def base_model_name(version: PromptVersion, served: BaseModelInfo | None) -> str | None:
    """The base's name for a PEFT adapter of this version: the name that it came with, else this server's if
    it runs that base, else nothing."""
    named = version.lineage.get(BASE_MODEL_NAME)
    if is_model_name(named):
        return str(named)
    if served is None or served.fingerprint != version.manifest.base_fingerprint:
        return None
    return served.name if is_model_name(served.name) else None


def _parts(name: str) -> list[str]:
    """Two parts for a hub id, one for anything else."""
    cached = _CACHED.search(name)
    if cached:
        return [cached[1].casefold(), cached[2].casefold()]
    parts = [part for part in re.split(r"[/\\]", name.casefold()) if part]
    if len(parts) == 2 and not name.startswith((".", "/", "~", "\\")):
        return [parts[0], parts[1].partition("@")[0]]
    return parts[-1:]
