"""Polling the members of an ensemble: one engine request for each, and the vote over their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chorus_server.api.http.errors import error_body
from chorus_server.api.inference.answers import unexpected
from chorus_server.api.inference.calls import Call
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.ranking import best, score_requests, scores_of
from chorus_server.api.inference.sampling import sampling_for
from chorus_server.api.inference.submit import SubmitResult
from chorus_server.api.inference.text import final_text
from chorus_server.api.inference.turns import in_turns
from chorus_server.api.inference.vote import Ballot, majority
from chorus_server.engine.requests import FinishedEvent, GenerateRequest, Request
from chorus_server.errors import ChorusError

Read = Callable[[SubmitResult, Item], tuple[str, float] | ChorusError]


@dataclass(frozen=True, slots=True)
class Poll:
    """One engine request for each member and input, and a function that reads an answer: `(answer, log
    probability)`."""

    requests: list[Request]
    read: Read


async def label_poll(call: Call, items: Sequence[Item], labels: list[str], *, sent: bool) -> Poll:
    """Members rank the same labels: those in the request, or those that they all share."""

    def read(outcome: SubmitResult, item: Item) -> tuple[str, float] | ChorusError:
        scores = scores_of(outcome)
        if isinstance(scores, ChorusError):
            return scores
        place = best(scores)
        return labels[place], scores[place]

    return Poll([*await score_requests(call, items, labels, sent=sent)], read)


async def text_poll(call: Call, items: Sequence[Item]) -> Poll:
    """Members answer freely and greedily. Each version's own length limit and stop texts apply."""
    stops: dict[int, tuple[str, ...]] = {}

    def request(index: int, item: Item) -> GenerateRequest:
        assert item.version is not None
        own = item.version.manifest.settings
        defaults = {name: own[name] for name in ("max_new_tokens", "min_new_tokens", "stop") if own.get(name)}
        sampling = sampling_for(call, item, {**defaults, "seed": 0})
        stops[id(item)] = sampling.stop
        return GenerateRequest(call.origin(index, item), item.input, sampling)

    def read(outcome: SubmitResult, item: Item) -> tuple[str, float] | ChorusError:
        if isinstance(outcome, ChorusError):
            return outcome
        if not isinstance(outcome, FinishedEvent):
            return unexpected(outcome)
        sequence = outcome.sequences[0]
        text = final_text(
            call.serving.vocabulary, sequence.tokens, stops[id(item)], bool(item.special_tokens)
        )
        return text, sequence.score

    return Poll([*await in_turns(request, range(len(items)), items)], read)


def voted(
    name: Mapping[str, Any],
    items: Sequence[Item],
    weights: Sequence[float],
    poll: Poll,
    outcomes: Sequence[SubmitResult],
    request_id: str,
) -> dict[str, Any] | ChorusError:
    """The answer for one input: the vote of the members that answered, or the first error if none did."""
    ballots: list[Ballot] = []
    members: list[dict[str, Any]] = []
    failures: list[ChorusError] = []
    for item, weight, outcome in zip(items, weights, outcomes, strict=True):
        member = item.identity | {"weight": weight}
        said = poll.read(outcome, item)
        if isinstance(said, ChorusError):
            failures.append(said)
            member["error"] = error_body(said, request_id)
        else:
            answer, log_probability = said
            ballots.append(Ballot(answer, log_probability, weight))
            member |= {"answer": answer, "log_probability": log_probability}
        members.append(member)
    if not ballots:
        return failures[0]
    result = majority(ballots)
    return {
        **name,
        "answer": result.answer,
        "counts": result.counts,
        "agreement": result.agreement,
        "truncated": any(item.truncated for item in items),
        "members": members,
    }
