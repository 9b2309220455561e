"""Ranks labels by their probability after an input, for classification and for votes among labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chorus_server.api.inference.answers import unexpected
from chorus_server.api.inference.calls import Call
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.prepare import answer_start, label_targets
from chorus_server.api.inference.submit import SubmitResult
from chorus_server.api.inference.turns import in_turns
from chorus_server.api.schemas.common import MAX_LABELS
from chorus_server.engine.requests import ScoredEvent, ScoreRequest
from chorus_server.errors import ChorusError, InternalError, InvalidInputError
from prompts_store.records import PromptVersion


def shared_labels(versions: Sequence[PromptVersion]) -> tuple[str, ...]:
    """The labels that all versions have, in the first one's order; empty if they differ."""
    first = versions[0].manifest.labels if versions else ()
    same = len(first) >= 2 and all(set(version.manifest.labels) == set(first) for version in versions)
    return tuple(first) if same else ()


async def score_requests(
    call: Call,
    items: Sequence[Item],
    labels: Sequence[str],
    *,
    sent: bool,
    sent_in: str = "labels",
    places: Sequence[int] | None = None,
) -> list[ScoreRequest]:
    """The engine's request for each item.

    Args:
        sent: whether the request sent these labels; if not, they are the version's own.
        sent_in: dotted path of the labels in the request.
        places: the items' positions in the request, where they are not all of it.

    Raises:
        InvalidInputError: there are more labels than the server ranks, or one cannot be ranked. The error
            names the label if the request sent it, else the version.
    """
    field = sent_in if sent else items[0].task_field
    if len(labels) > MAX_LABELS:  # a version's labels; those of a request were counted before
        whose = "" if sent else " in the version: send fewer of your own, or use another version"
        raise InvalidInputError(
            f"There are {len(labels)} labels{whose}; the limit is {MAX_LABELS}.", field=field
        )
    longest = call.serving.limits.max_target_tokens
    vocabulary = call.serving.vocabulary
    starts = [(answer_start(vocabulary, item.version), bool(item.special_tokens)) for item in items]
    by_start = {
        (start, special): tuple(
            label_targets(vocabulary, labels, longest, field, start, sent=sent, special_tokens=special)
        )
        for start, special in dict.fromkeys(starts)
    }

    for targets in by_start.values():
        if problem := call.serving.limits.too_many_targets(targets):
            whose = "" if sent else " of the version"
            raise InvalidInputError(f"The labels{whose} {problem}.", field=field)

    def request(index: int, item: Item, start: tuple[tuple[int, ...], bool]) -> ScoreRequest:
        return ScoreRequest(call.origin(index, item), item.input, by_start[start])

    return await in_turns(request, places if places is not None else range(len(items)), items, starts)


def scores_of(outcome: SubmitResult) -> Sequence[float] | ChorusError:
    """Log probabilities of the labels in order, or the error in their place."""
    if isinstance(outcome, ChorusError):
        return outcome
    if not isinstance(outcome, ScoredEvent):
        return unexpected(outcome)
    if any(math.isnan(score) for score in outcome.log_probabilities):
        return InternalError("The model's scores are not numbers: the prompt's values may be damaged.")
    return outcome.log_probabilities


def best(scores: Sequence[float]) -> int:
    """The position of the highest score; of equal ones, the first."""
    return max(range(len(scores)), key=scores.__getitem__)
