"""Requests as plain data, and calls as generators of requests, so that one description of a route serves both
clients.

A *call* yields `Request`s, receives an `Answer` for each (or the error that came instead), and returns its
typed result. `Call` is the common case of one request. A call of several steps is a generator function that
uses `yield from`. The transport alone does the I/O, and decides whether it blocks or awaits.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from pydantic import ValidationError

from chorus.datafiles import Content
from chorus.errors import InvalidArgumentError, UnexpectedAnswerError
from chorus.types.base import Wire

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
M = TypeVar("M", bound=Wire)


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart body: one file and its metadata as JSON."""

    filename: str
    content: bytes
    metadata: str


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request before it is sent.

    Attributes:
        path: percent-encoded, relative to the base URL.
        query: name and value pairs, in order.
        body: JSON text, or None.
        content: bytes to send unchanged; they are read while they are sent.
        repeatable: whether sending it twice has the same effect as sending it once, so that it may be tried
            again after it may have been processed.
        inference: whether it only asks the model. Sent twice, it is done and counted twice.
        also_answers: statuses outside 2xx that are answers of this route rather than errors.
        token: a bearer token to send in place of the client's key.
        idempotency_key: by which the server knows the request if it comes again.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    upload: Upload | None = None
    content: Content | None = None
    repeatable: bool = False
    inference: bool = False
    also_answers: frozenset[int] = frozenset()
    token: str | None = field(default=None, repr=False)
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


Steps = Generator[Request, Answer, T]


class Plan(Protocol[T_co]):
    """A `Call`, or a generator of several steps."""

    def __iter__(self) -> Generator[Request, Answer, T_co]: ...


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    request: Request
    parse: Callable[[Answer], T]

    def __iter__(self) -> Steps[T]:
        answer = yield self.request
        return self.parse(answer)


def creation(
    path: str,
    query: tuple[tuple[str, str], ...] = (),
    *,
    body: bytes | None = None,
    upload: Upload | None = None,
    content: Content | None = None,
) -> Request:
    """A request that makes something. With its key the server makes it once, however often it is sent."""
    key = secrets.token_hex(16)
    return Request("POST", path, query, body, upload, content, repeatable=True, idempotency_key=key)


def encode_json(value: object, field_name: str = "body") -> bytes:
    """`value` as JSON text.

    Raises:
        InvalidArgumentError: it has a number that is not finite, or a value that JSON cannot express.
    """
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidArgumentError(
            f"{field_name} cannot be written as JSON: {error}.", field=field_name
        ) from error


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def query_of(**values: object) -> tuple[tuple[str, str], ...]:
    """Query pairs of the values that are given; a list gives one pair for each element."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if value is None:
            continue
        elements = value if isinstance(value, (list, tuple)) else (value,)
        pairs.extend((name, str(element)) for element in elements)
    return tuple(pairs)


def model_of(kind: type[M]) -> Callable[[Answer], M]:
    """A reader of JSON answers.

    Raises (when called):
        UnexpectedAnswerError: the answer is not JSON, or lacks a field.
    """

    def parse(answer: Answer) -> M:
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the body"
            raise UnexpectedAnswerError(
                f"The answer (status {answer.status}) is not a {kind.__name__}: {place}: {first['msg']}. "
                "Is the URL that of a Chorus server of this version?"
            ) from error

    return parse


def nothing(answer: Answer) -> None:
    """A reader of answers without a body."""
