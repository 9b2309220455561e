"""Polling the members of an ensemble: one engine request for each, and the vote over their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chorus_server.api.http.errors import error_body
from chorus_server.api.inference.answers import unexpected
from chorus_server.api.inference.calibrated import Ranked, ranked, uncalibrated
from chorus_server.api.inference.calls import Call
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.ranking import score_requests, scores_of
from chorus_server.api.inference.sampling import sampling_for
from chorus_server.api.inference.submit import SubmitResult
from chorus_server.api.inference.text import final_text
from chorus_server.api.inference.turns import in_turns
from chorus_server.engine.requests import FinishedEvent, GenerateRequest, Request
from chorus_server.errors import ChorusError
from chorus_server.quality.vote import Ballot, majority

Read = Callable[[SubmitResult, Item], tuple[str, float] | ChorusError]
Rank = Callable[[SubmitResult, Item], Ranked | ChorusError]


@dataclass(frozen=True, slots=True)
class Poll:
    """One engine request for each member and input, and a function that reads an answer: `(answer, log
    probability)`.

    Attributes:
        labels, rank: where members rank labels.
    """

    requests: list[Request]
    read: Read
    labels: Sequence[str] = ()
    rank: Rank | None = None


async def label_poll(
    call: Call, items: Sequence[Item], labels: list[str], *, sent: bool, calibrated: bool = True
) -> Poll:
    """Members rank the same labels: those in the request, or those that they all share.

    Args:
        calibrated: whether the members' calibrations serve.
    """

    matrix_dtype = call.serving.base.matrix_dtype

    def rank(outcome: SubmitResult, item: Item) -> Ranked | ChorusError:
        scores = scores_of(outcome)
        if isinstance(scores, ChorusError):
            return scores
        return ranked(item, labels, scores, matrix_dtype) if calibrated else uncalibrated(scores)

    def read(outcome: SubmitResult, item: Item) -> tuple[str, float] | ChorusError:
        found = rank(outcome, item)
        return found if isinstance(found, ChorusError) else (labels[found.place], found.log_probability)

    return Poll([*await score_requests(call, items, labels, sent=sent)], read, labels, rank)


async def text_poll(call: Call, items: Sequence[Item]) -> Poll:
    """Members answer freely and greedily. Each version's own length limit and stop texts apply."""
    stops: dict[int, tuple[str, ...]] = {}

    def request(index: int, item: Item) -> GenerateRequest:
        own = item.version.manifest.settings if item.version is not None else {}
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
    pooled: list[tuple[Ranked, float]] = []
    members: list[dict[str, Any]] = []
    failures: list[ChorusError] = []
    for item, weight, outcome in zip(items, weights, outcomes, strict=True):
        member = item.identity | {"weight": weight}
        said = poll.read(outcome, item) if poll.rank is None else poll.rank(outcome, item)
        if isinstance(said, ChorusError):
            failures.append(said)
            member["error"] = error_body(said, request_id)
        elif isinstance(said, Ranked):
            pooled.append((said, weight))
            answer = poll.labels[said.place]
            # As the model gives it: no calibration changes who wins a tie.
            ballots.append(Ballot(answer, said.log_probability, weight))
            member |= {"answer": answer, "log_probability": said.log_probability}
            member |= {"probability": said.probabilities[said.place], **said.facts}
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
        **_pooled(poll.labels, pooled),
        "truncated": any(item.truncated for item in items),
        "members": members,
    }


def _pooled(labels: Sequence[str], ranked: Sequence[tuple[Ranked, float]]) -> dict[str, Any]:
    """The members' mean probability of each label, by weight; nothing where members answered freely."""
    if not ranked:
        return {}
    total = sum(weight for _, weight in ranked)
    means = [
        sum(weight * found.probabilities[place] for found, weight in ranked) / total
        for place in range(len(labels))
    ]
    calibrated = all(found.calibration is not None for found, _ in ranked)
    return {"probabilities": dict(zip(labels, means, strict=True)), "calibrated": calibrated}
