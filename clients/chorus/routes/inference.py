"""`/v1/generate`, `/v1/classify` and `/v1/ensemble`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Required, TypedDict, Unpack

from chorus.errors import InvalidArgumentError
from chorus.methods import Method, StreamMethod
from chorus.types import ClassifyResponse, EnsembleResponse, GenerateResponse
from chorus.wire import Call, Request, encode_json, model_of, without_none

Input = str | Mapping[str, str]
"""Text, or the fields of the version's template."""


class Sampling(TypedDict, total=False):
    """How tokens are chosen; what is not given is the version's own default, then the server's.

    Attributes:
        max_new_tokens, min_new_tokens: `</s>` counts.
        temperature: 0 is greedy.
        top_k: 0 is off.
        top_p: 1 is off.
        seed: the same seed and input give the same text.
        num_beams: 1, 2, 4 or 8.
        length_penalty: T5X's alpha.
        stop: text that ends the generation.
        n: how many sequences.
    """

    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    num_beams: int
    length_penalty: float
    stop: str | Sequence[str]
    n: int


class Settings(Sampling, total=False):
    """Settings of generation.

    Attributes:
        logprobs: tell each token's log probability.
        truncate: cut text that is too long instead of refusing it.
        deadline_seconds: give up after so long.
    """

    logprobs: bool
    truncate: bool
    deadline_seconds: float


class GenerateItem(Sampling, total=False):
    """One of `requests`: its own task and input, and settings that go before those given for all."""

    task: Required[str | None]
    input: Required[Input]
    logprobs: bool
    truncate: bool


def one_or_many(input: Input | None, inputs: Sequence[Input] | None) -> dict[str, Any]:
    """The `input` or `inputs` part of a body.

    Raises:
        InvalidArgumentError: neither or both were given, or `inputs` is a text.
    """
    if (input is None) == (inputs is None):
        raise InvalidArgumentError("Give either input or inputs.", field="input")
    if input is not None:
        return {"input": input}
    if isinstance(inputs, (str, bytes)) or not inputs:
        raise InvalidArgumentError("inputs is a list of one or more; a single text is input.", field="inputs")
    return {"inputs": list(inputs)}


def _body(
    task: str | None,
    input: Input | None,
    inputs: Sequence[Input] | None,
    requests: Sequence[GenerateItem] | None,
    settings: Settings,
) -> dict[str, Any]:
    if requests is None:
        return {"task": task, **one_or_many(input, inputs), **settings}
    if task is not None or input is not None or inputs is not None:
        raise InvalidArgumentError(
            "requests carries its own tasks and inputs; give nothing beside it.", field="requests"
        )
    if not requests:
        raise InvalidArgumentError("requests is a list of one or more.", field="requests")
    # The server takes settings beside `requests` as each item's default.
    return {"requests": list(requests), **settings}


def generate_request(
    task: str | None = None,
    *,
    input: Input | None = None,
    inputs: Sequence[Input] | None = None,
    requests: Sequence[GenerateItem] | None = None,
    **settings: Unpack[Settings],
) -> Request:
    """The request of `generate`."""
    return Request("POST", "/v1/generate", body=encode_json(_body(task, input, inputs, requests, settings)))


def stream_request(
    task: str | None = None,
    *,
    input: Input | None = None,
    inputs: Sequence[Input] | None = None,
    requests: Sequence[GenerateItem] | None = None,
    **settings: Unpack[Settings],
) -> Request:
    """Generate, and tell of each token as it comes.

    Takes what `generate` takes. The request is sent when the stream is entered or first read; an item's
    failure is an `ErrorEvent`, everything else is raised. Leave the `with` block early and the server stops
    working on it.
    """
    body = {**_body(task, input, inputs, requests, settings), "stream": True}
    return Request("POST", "/v1/generate", body=encode_json(body))


def generate(
    task: str | None = None,
    *,
    input: Input | None = None,
    inputs: Sequence[Input] | None = None,
    requests: Sequence[GenerateItem] | None = None,
    **settings: Unpack[Settings],
) -> Call[GenerateResponse]:
    """Generate text.

    Args:
        task: a reference (`acme/sst2`, `acme/sst2@3`, `acme/sst2@canary`), or None for the base model.
        input: text, or the fields of the version's template.
        inputs: a list of those.
        requests: for mixed tasks: a list of objects with `task`, `input` and settings that differ from
            `settings`.
        settings: see `Settings`.

    Returns:
        One result for each input, in the order asked; a result may be a `FailedItem`.

    Raises:
        ApiError: the batch was refused whole, or every item failed.
    """
    request = generate_request(task, input=input, inputs=inputs, requests=requests, **settings)
    return Call(request, model_of(GenerateResponse))


def classify(
    task: str | None = None,
    *,
    input: Input | None = None,
    inputs: Sequence[Input] | None = None,
    labels: Sequence[str] | None = None,
    truncate: bool | None = None,
    deadline_seconds: float | None = None,
) -> Call[ClassifyResponse]:
    """Rank labels by their probability after the input.

    Args:
        task: a reference, or None for the base model.
        input: text, or the fields of the version's template.
        inputs: a list of those.
        labels: the choice; the version's own where none is given.
        truncate: cut text that is too long instead of refusing it.
        deadline_seconds: give up after so long.

    Returns:
        One label with all probabilities for each input, in the order asked.
    """
    optional = {
        "labels": None if labels is None else list(labels),
        "truncate": truncate,
        "deadline_seconds": deadline_seconds,
    }
    body = {"task": task, **one_or_many(input, inputs), **without_none(optional)}
    return Call(Request("POST", "/v1/classify", body=encode_json(body)), model_of(ClassifyResponse))


def ensemble(
    ensemble: str | None = None,
    *,
    tasks: Sequence[str] | None = None,
    input: Input | None = None,
    inputs: Sequence[Input] | None = None,
    vote: str | None = None,
    weights: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    max_new_tokens: int | None = None,
    truncate: bool | None = None,
    deadline_seconds: float | None = None,
) -> Call[EnsembleResponse]:
    """Ask several prompts and let them vote.

    Args:
        ensemble: a stored ensemble's reference, or
        tasks: the members' references.
        input: text, or template fields.
        inputs: a list of those.
        vote: `majority`.
        weights: one for each of `tasks`.
        labels: the choice, where the members' own are not wanted.
        max_new_tokens: for members that answer with free text.
        truncate: cut text that is too long instead of refusing it.
        deadline_seconds: give up after so long.

    Returns:
        The common answer, the counts and every member's answer for each input.
    """
    if (ensemble is None) == (tasks is None):
        raise InvalidArgumentError("Give either a stored ensemble or tasks.", field="tasks")
    who: dict[str, Any] = {"ensemble": ensemble} if tasks is None else {"tasks": list(tasks)}
    optional = {
        "vote": vote,
        "weights": None if weights is None else list(weights),
        "labels": None if labels is None else list(labels),
        "max_new_tokens": max_new_tokens,
        "truncate": truncate,
        "deadline_seconds": deadline_seconds,
    }
    body = {**who, **one_or_many(input, inputs), **without_none(optional)}
    return Call(Request("POST", "/v1/ensemble", body=encode_json(body)), model_of(EnsembleResponse))


class InferenceMethods:
    """Those of the client itself that ask the model."""

    generate = Method(generate)
    stream = StreamMethod(stream_request)
    classify = Method(classify)
    ensemble = Method(ensemble)
