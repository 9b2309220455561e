"""Native answers in the shapes of completions and chat, whole and in chunks.

A *native choice* is `{"text", "finish_reason", "logprobs"}` as `/v1/generate` answers it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from chorus_server.api.inference.calls import Call
from chorus_server.api.inference.items import Item
from chorus_server.api.openai.items import shown_model

NativeChoice = Mapping[str, Any]

_REASONS = {"stop": "stop", "stop_string": "stop", "length": "length"}
_SPACE = "\u2581"


def native_choices(native: Mapping[str, Any]) -> list[NativeChoice]:
    """The choices of a native answer, which names them only where there are several."""
    choices: list[NativeChoice] = native.get("choices") or [native]
    return choices


def usage_json(input_tokens: int, output_tokens: int) -> dict[str, int]:
    """Numbers of tokens."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


def usage_in_details(input_tokens: int, output_tokens: int) -> dict[str, Any]:
    """The same in the fields of responses and decisions."""
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input_tokens + output_tokens,
    }


@dataclass(frozen=True)
class Shape(ABC):
    """How an answer is written.

    Attributes:
        call: that is answered.
        logprobs: whether the body asks for log probabilities.
        warnings: what the answer warns of.
        created: Unix time.
    """

    call: Call
    logprobs: bool = False
    warnings: Sequence[str] = ()
    created: int = field(default_factory=lambda: int(time.time()))

    whole = chunk = prefix = ""

    def head(self, item: Item, *, chunk: bool = False) -> dict[str, Any]:
        """The fields before the choices."""
        head = {
            "id": f"{self.prefix}-{self.call.request_id}",
            "object": self.chunk if chunk else self.whole,
            "created": self.created,
            "model": shown_model(self.call, item),
            "system_fingerprint": self.call.serving.base.system_fingerprint,
        }
        return head | ({"warnings": list(self.warnings)} if self.warnings else {})

    @abstractmethod
    def choice(self, index: int, native: NativeChoice) -> dict[str, Any]:
        """A whole choice."""

    @abstractmethod
    def opening(self, index: int) -> dict[str, Any] | None:
        """The first chunk of a choice, if there is one before its text."""

    @abstractmethod
    def piece(self, index: int, text: str) -> dict[str, Any]:
        """A chunk with more of its text."""

    @abstractmethod
    def ending(self, index: int, native: NativeChoice) -> dict[str, Any]:
        """Its last chunk. Log probabilities are known by then, and all come with it."""


@dataclass(frozen=True)
class TextShape(Shape):
    """Of completions.

    Attributes:
        echoes: what stands before the choices of each prompt, as UTF-8.
        each: choices of a prompt.
    """

    echoes: Sequence[bytes] = ()
    each: int = 1

    whole = chunk = "text_completion"
    prefix = "cmpl"

    def choice(self, index: int, native: NativeChoice) -> dict[str, Any]:
        echo = self._echo(index)
        return self._choice(index, echo + native["text"], native)

    def opening(self, index: int) -> dict[str, Any] | None:
        echo = self._echo(index)
        return self.piece(index, echo) if echo else None

    def piece(self, index: int, text: str) -> dict[str, Any]:
        return self._choice(index, text, None)

    def ending(self, index: int, native: NativeChoice) -> dict[str, Any]:
        return self._choice(index, "", native)

    def _echo(self, index: int) -> str:
        return self.echoes[index // self.each].decode() if self.echoes else ""

    def _choice(self, index: int, text: str, ended: NativeChoice | None) -> dict[str, Any]:
        logprobs = None if ended is None or not self.logprobs else _text_logprobs(ended)
        reason = None if ended is None else _REASONS[ended["finish_reason"]]
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


@dataclass(frozen=True)
class ChatShape(Shape):
    """Of chat."""

    whole, chunk, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def choice(self, index: int, native: NativeChoice) -> dict[str, Any]:
        message = {"role": "assistant", "content": native["text"], "refusal": None}
        return {"index": index, "message": message, **self._end(native)}

    def opening(self, index: int) -> dict[str, Any]:
        return self._delta(index, {"role": "assistant", "content": "", "refusal": None})

    def piece(self, index: int, text: str) -> dict[str, Any]:
        return self._delta(index, {"content": text})

    def ending(self, index: int, native: NativeChoice) -> dict[str, Any]:
        return {"index": index, "delta": {}, **self._end(native)}

    def _delta(self, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _end(self, native: NativeChoice) -> dict[str, Any]:
        logprobs = _chat_logprobs(native) if self.logprobs else None
        return {"logprobs": logprobs, "finish_reason": _REASONS[native["finish_reason"]]}


def _text_logprobs(native: NativeChoice) -> dict[str, Any]:
    said = native["logprobs"]
    tokens, tops = _spelled(said)
    starts = [0, *accumulate(map(len, tokens))][: len(tokens)]
    return {
        "tokens": tokens,
        "token_logprobs": said["token_logprobs"],
        "top_logprobs": [_likelier(place) for place in tops] or None,
        "text_offset": [min(start, len(native["text"])) for start in starts],
    }


def _likelier(place: Sequence[tuple[str, float]]) -> dict[str, float]:
    """By token; of two that are spelled alike, the likelier, which comes first."""
    found: dict[str, float] = {}
    for token, logprob in place:
        found.setdefault(token, logprob)
    return found


def _chat_logprobs(native: NativeChoice) -> dict[str, Any]:
    tokens, tops = _spelled(native["logprobs"])
    pairs = zip(tokens, native["logprobs"]["token_logprobs"], strict=True)
    said = [_chat_token(*pair) for pair in pairs]
    beside = [[_chat_token(*pair) for pair in place] for place in tops] or [[] for _ in tokens]
    content = [{**each, "top_logprobs": place} for each, place in zip(said, beside, strict=True)]
    return {"content": content, "refusal": None}


def _chat_token(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "bytes": list(token.encode()), "logprob": logprob}


def _spelled(said: Mapping[str, Any]) -> tuple[list[str], list[list[tuple[str, float]]]]:
    """The tokens as texts that joined are the answer's, which has no space before it; and the likeliest ones
    in the place of each, if they were asked for."""
    tokens: list[str] = []
    tops: list[list[tuple[str, float]]] = []
    begun = False
    for at, piece in enumerate(said["tokens"]):
        spell = _spaced if begun else _first
        tokens.append(spell(piece))
        if said.get("top_logprobs"):
            tops.append([(spell(top["token"]), top["logprob"]) for top in said["top_logprobs"][at]])
        begun = begun or bool(tokens[-1])
    return tokens, tops


def _spaced(piece: str) -> str:
    return piece.replace(_SPACE, " ")


def _first(piece: str) -> str:
    return _spaced(piece).lstrip(" ")
