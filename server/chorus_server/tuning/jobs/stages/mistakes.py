"""Part of the last stage: what the new versions get wrong becomes a data file of the tenant.

The file has texts of the tenant's rows, so whoever may read the rows may read it, and nothing of it is in
events, in the log or in the job itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from chorus_server.quality.mistakes import Mistakes, confusion_matrix
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.training.run import PromptTask, TrainingRun
from chorus_server.tuning.training.state import TrainingState
from prompts_store.errors import LeaseLostError, StoreError

_MOST_TEXT = 500
"""Characters of a row's text."""
_MOST_ANSWER = 200


def mistakes_of(
    attempt: Attempt, run: TrainingRun, state: TrainingState, place: int, facts: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The line of a prompt that became a version; None if it was measured on no split.

    Args:
        facts: what the job's result says of the version.
    """
    task, found = run.tasks[place], state.standings[place].mistakes
    if found is None:
        return None
    return {
        "reference": facts["reference"],
        "split": found.split,
        "rows": found.rows,
        "confusion": None if found.confused is None else confusion_matrix(found.confused, task.labels),
        "hardest": [_row(attempt, task, found, each) for each in found.hardest],
    }


def _row(
    attempt: Attempt, task: PromptTask, found: Mistakes, hardest: tuple[int, str, float | None]
) -> dict[str, Any]:
    place, said, loss = hardest
    example = (task.validation if found.split == "validation" else task.test)[place]
    shown = {"show_sentinels": True} if task.recipe.special_tokens else {}
    text = attempt.base.vocabulary.decode(example.input_ids, **shown)
    return {
        "row": example.row,
        "text": _cut(text, _MOST_TEXT),
        "answer": _cut(example.answers[0], _MOST_ANSWER),
        "said": _cut(said, _MOST_ANSWER),
        "loss": loss,
    }


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def save_mistakes(attempt: Attempt, lines: Iterable[Mapping[str, Any] | None]) -> str | None:
    """Store the lines of all new versions: the file's id. None, with a warning, if that fails: a tenant that
    may keep no more files gets its versions all the same.

    Raises:
        LeaseLostError: another process has the job.
    """
    written = [json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines if line is not None]
    if not written:
        return None
    name, most = f"{attempt.job.id}-mistakes.jsonl", attempt.config.max_file_bytes
    try:
        return attempt.held.save_file(name, iter(written), max_bytes=most)
    except LeaseLostError:
        raise
    except StoreError as error:
        attempt.warn([f"what the new versions get wrong is not kept: {error.message}"])
        return None
