"""From a body of OpenAI's fine-tuning to a document of a tuning job."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

from chorus_server.api.openai.model_names import reference_of
from chorus_server.api.schemas.openai.fine_tuning import FineTuningBody, Hyperparameters
from chorus_server.api.services import Services
from chorus_server.errors import InvalidInputError
from chorus_server.tenancy.principal import Principal
from chorus_server.tuning.data.conversations import HISTORY, LABEL, SYSTEM, TEXT, is_conversation
from chorus_server.tuning.data.readers import ReadOptions, read_rows
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.document.recipe import (
    SENTINEL_SETTING,
    SPECIAL_TOKENS_SETTING,
    TRUNCATION_SETTING,
)
from prompts_store.records import LEAST_CALIBRATION_ROWS, PromptVersion

PAPERS_RATE = 0.3
OWN_NOTES = "chorus."
"""How keys of the job's metadata begin that are the server's own."""
N_EPOCHS = f"{OWN_NOTES}n_epochs"

_BATCH_SIZE, _STEPS, _MOST_STEPS = 16, 500, 30_000
_FEWEST_EPOCHS = 3
_PROMPT_LENGTH, _EVALUATIONS = 20, 10
_FEWEST_TARGET_TOKENS, _MOST_TARGET_TOKENS = 64, 512
_CUT_ONE_OF, _CUT_MOST = 10, 500
_CUT_FROM = _CUT_ONE_OF * LEAST_CALIBRATION_ROWS
"""Of fewer rows none are cut for validation: all are learned, and the last values are kept."""
_PEEKED_ROWS, _PEEKED_CHARACTERS = 200, 1 << 20
_PIECE_BYTES = 1 << 20
_NOT_IN_NAMES = re.compile(r"[^a-z0-9._-]+")

PARAMS = {
    "task": "suffix",
    "data.train": "training_file",
    "data.validation": "validation_file",
    "initial_prompt": "model",
    "seed": "seed",
    "metadata": "metadata",
    "recipe.steps": "hyperparameters.n_epochs",
    "recipe.batch_size": "hyperparameters.batch_size",
    "recipe.learning_rate": "hyperparameters.learning_rate_multiplier",
}
"""OpenAI's name for what a field of the document was made from."""


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """What a look at a file tells before a job reads it.

    Attributes:
        rows: its lines, about.
        template: one that uses what its first rows have.
        target_tokens: room for an answer as long as the longest of its first rows.
    """

    rows: int
    template: str
    target_tokens: int


def param_of(field: str | None, sent: Mapping[str, Any] | None = None) -> str | None:
    """OpenAI's name for a field of the document.

    Args:
        sent: the body's `chorus`; its fields keep their own names, below `chorus.`.
    """
    if field is None:
        return None
    if field.split(".")[0] not in (sent or {}):
        for name, param in PARAMS.items():
            if field == name or field.startswith(f"{name}."):
                return param
    return f"chorus.{field}"


def look_at(path: Path, name: str) -> TrainingFile:
    """Look at a file: its lines are counted, and its first rows read. Runs on a thread. A bad row is the
    job's to refuse."""
    template, longest = _first_rows(path, name)
    # No text has more tokens than characters.
    tokens = min(max(longest + 1, _FEWEST_TARGET_TOKENS), _MOST_TARGET_TOKENS)
    return TrainingFile(_lines(path), template, tokens)


async def document_of(
    services: Services, principal: Principal, body: FineTuningBody, file: TrainingFile
) -> JobDocument:
    """The document of the job that a body asks for.

    Raises:
        InvalidInputError: a value is none that a job can have, with OpenAI's name of the field.
        StoreAnswerError: the task to go on from is not there, field `model`.
    """
    for name in body.metadata:
        if name.startswith(OWN_NOTES):
            raise InvalidInputError(f"No key begins with '{OWN_NOTES}'.", field="metadata")
    reference = reference_of(services, body.model)
    version = None
    if reference is not None:
        version = await services.library.resolve(
            reference, principal.tenant, "model", patterns=principal.tasks, right="read"
        )
    made = {
        "task": _task(body, version),
        "data": _data(body, file.rows),
        "seed": body.seed or 0,
        # What its callers read is text, so the checkpoint is chosen by that, also where there are labels.
        "answer_by": "greedy",
        **_prompt(file, version, reference),
    }
    recipe, n_epochs = _recipe(body.knobs, made, file)
    sent = dict(body.chorus)
    for name, ours in (("data", made["data"]), ("recipe", {**made.get("recipe", {}), **recipe})):
        theirs = sent.pop(name, {})
        made[name] = {**ours, **theirs} if isinstance(theirs, Mapping) else theirs
    if "labels" in sent:
        made["labels_from_data"] = False
    notes = {**body.metadata, N_EPOCHS: str(n_epochs)}
    return await services.text.run(JobDocument.read, {**made, **sent, "metadata": notes})


def _task(body: FineTuningBody, version: PromptVersion | None) -> str:
    if body.suffix is not None:
        return _NOT_IN_NAMES.sub("-", body.suffix.lower()).strip("-._") or "-"
    return f"ft-{secrets.token_hex(4)}" if version is None else version.task


def _data(body: FineTuningBody, rows: int) -> dict[str, Any]:
    data: dict[str, Any] = {"train": {"file": body.training_file}, "format": "jsonl"}
    if body.validation_file is not None:
        data["validation"] = {"file": body.validation_file}
    elif rows < _CUT_FROM:
        data["validation_rows"] = 0
    return data


def _prompt(file: TrainingFile, version: PromptVersion | None, reference: str | None) -> dict[str, Any]:
    """Template, labels, settings and where to start: those of the task, or what suits the file."""
    if version is None:
        cut = {TRUNCATION_SETTING: {"field": HISTORY, "side": "left"}}
        return {
            "template": file.template,
            "labels_from_data": True,
            "settings": cut if f"{{{HISTORY}}}" in file.template else {},
            "recipe": {"prompt_length": _PROMPT_LENGTH},
        }
    manifest = version.manifest
    knobs = (SENTINEL_SETTING, SPECIAL_TOKENS_SETTING)
    return {
        "template": manifest.template,
        "labels": list(manifest.labels),
        "labels_from_data": not manifest.labels,
        "settings": {name: value for name, value in manifest.settings.items() if name not in knobs},
        "initial_prompt": reference,
        "recipe": {
            "prompt_length": manifest.length,
            **{name: bool(manifest.settings.get(name)) for name in knobs},
        },
    }


def _recipe(
    knobs: Hyperparameters, made: Mapping[str, Any], file: TrainingFile
) -> tuple[dict[str, Any], int]:
    """The knobs, and how often every row is learned."""
    rows = file.rows
    measured = made["data"].get("validation_rows") != 0
    whole = "validation" in made["data"] or not measured
    train = rows if whole else rows - min(rows // _CUT_ONE_OF, _CUT_MOST)
    batch = knobs.batch_size or min(_BATCH_SIZE, train)
    epochs = knobs.n_epochs or _epochs(train, batch)
    steps = ceil(epochs * train / batch)
    recipe = {
        "steps": steps,
        "batch_size": batch,
        "learning_rate": PAPERS_RATE * (knobs.learning_rate_multiplier or 1.0),
        "evaluate_every_steps": ceil(steps / _EVALUATIONS) if measured else steps,
        "max_target_tokens": file.target_tokens,
    }
    return recipe, epochs


def _epochs(rows: int, batch: int) -> int:
    """`auto`: a prompt needs some hundred steps, however few rows there are."""
    return max(1, min(max(ceil(_STEPS * batch / rows), _FEWEST_EPOCHS), _MOST_STEPS * batch // rows))


def _lines(path: Path) -> int:
    """How many lines a file has, 1 at least."""
    found, last = 0, b"\n"
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            found, last = found + piece.count(b"\n"), piece[-1:]
    return max(1, found + (last != b"\n"))


def _first_rows(path: Path, name: str) -> tuple[str, int]:
    """A template that takes the history where a row has one, and the system's messages where they differ; and
    the characters of the longest answer."""
    history, systems, characters, longest = False, set(), 0, 0
    options = ReadOptions(format="jsonl", name=name)
    with suppress(InvalidInputError):
        for _, record in islice(read_rows(path, options, field="training_file"), _PEEKED_ROWS):
            if is_conversation(record):
                texts = {
                    name: text for name in (TEXT, SYSTEM, HISTORY) if isinstance(text := record[name], str)
                }
                history = history or bool(texts.get(HISTORY))
                systems.add(texts.get(SYSTEM, ""))
                characters += sum(map(len, texts.values()))
            answer = record.get(LABEL)
            longest = max(longest, len(answer) if isinstance(answer, str) else 0)
            if characters > _PEEKED_CHARACTERS:
                break
    used = [SYSTEM] * (len(systems) > 1) + [HISTORY] * history + [TEXT]
    return "\n".join(f"{{{name}}}" for name in used), longest
