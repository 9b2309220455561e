"""The answer for one generated item, the same whether it was streamed or not."""

from __future__ import annotations

from typing import Any

from chorus_server.api.inference.answers import unexpected
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.submit import SubmitResult
from chorus_server.api.inference.text import final_text
from chorus_server.engine.requests import FinishedEvent, GenerateRequest, SequenceOutput
from chorus_server.errors import ChorusError
from chorus_server.model.vocabulary import Vocabulary


def generated(
    vocabulary: Vocabulary, item: Item, request: GenerateRequest, outcome: SubmitResult
) -> dict[str, Any] | ChorusError:
    """The answer for one item."""
    if isinstance(outcome, ChorusError):
        return outcome
    if not isinstance(outcome, FinishedEvent):
        return unexpected(outcome)
    stop = request.sampling.stop
    shown = bool(item.special_tokens)
    texts = [final_text(vocabulary, sequence.tokens, stop, shown) for sequence in outcome.sequences]
    first = outcome.sequences[0]
    answer = {
        **item.identity,
        "text": texts[0],
        "finish_reason": first.finish_reason,
        "truncated": item.truncated,
        "usage": item.usage(sum(len(sequence.tokens) for sequence in outcome.sequences)),
    }
    logprobs = item.logprobs or request.sampling.top_logprobs > 0
    if request.sampling.n > 1 or logprobs:
        answer["choices"] = [
            _choice(vocabulary, text, sequence, logprobs)
            for text, sequence in zip(texts, outcome.sequences, strict=True)
        ]
    return answer


def _choice(vocabulary: Vocabulary, text: str, sequence: SequenceOutput, logprobs: bool) -> dict[str, Any]:
    choice: dict[str, Any] = {"text": text, "finish_reason": sequence.finish_reason, "score": sequence.score}
    if logprobs:
        choice["logprobs"] = {
            "tokens": [vocabulary.piece(token) for token in sequence.tokens],
            "token_logprobs": list(sequence.log_probabilities),
        }
        if sequence.top:
            choice["logprobs"]["top_logprobs"] = [
                [{"token": vocabulary.piece(id), "id": id, "logprob": value} for id, value in place]
                for place in sequence.top
            ]
    return choice
