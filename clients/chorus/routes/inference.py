"""`/v1/generate`, `/v1/classify` and `/v1/ensemble`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypedDict, Unpack

from chorus.errors import InvalidArgumentError
from chorus.methods import Method, StreamMethod
from chorus.types import ClassifyResponse, EnsembleResponse, GenerateResponse
from chorus.wire import Call, Request, encode_json, model_of, without_none

Priority = Literal["interactive", "batch"]
"""The classes of a tenant's requests."""

Input = str | Mapping[str, str]
"""A text, or the fields of the version's template."""


class Sampling(TypedDict, total=False):
    """How tokens are chosen. Settings that are not given are the version's own defaults, else the server's.

    Attributes:
        max_new_tokens, min_new_tokens: `</s>` counts as one.
        temperature: 0 is greedy.
        top_k: 0 switches it off.
        top_p: 1 switches it off.
        seed: the same seed and input give the same text.
        num_beams: 1 to 10.
        length_penalty: the exponent of its rule.
        length_penalty_rule: `t5x` or `huggingface`.
        repetition_penalty: 1 switches it off.
        frequency_penalty, presence_penalty: 0 switches them off.
        no_repeat_ngram_size: 0 switches it off.
        logit_bias: a bias for each of at most 64 token ids.
        top_logprobs: how many of the likeliest tokens to tell at each place; 0 switches it off.
        stop: texts that end the generation.
        n: how many sequences to return.
    """

    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    num_beams: int
    length_penalty: float
    length_penalty_rule: Literal["t5x", "huggingface"]
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    no_repeat_ngram_size: int
    logit_bias: Mapping[int, float] | Mapping[str, float]
    top_logprobs: int
    stop: str | Sequence[str]
    n: int


class Settings(Sampling, total=False):
    """Settings of generation.

    Attributes:
        logprobs: return each token's log probability.
        truncate: cut a text that is too long instead of refusing it.
        special_tokens: make sentinels of `<extra_id_0>` and so on.
        deadline_seconds: give up after this many seconds.
        priority: `batch` lets the tenant's other requests go first.
    """

    logprobs: bool
    truncate: bool
    special_tokens: bool
    deadline_seconds: float
    priority: Priority


class GenerateItem(Sampling, total=False):
    """One item of `requests`: its own task and input, and settings that override those given for all."""

    task: Required[str | None]
    input: Required[Input]
    logprobs: bool
    truncate: bool
    special_tokens: bool


class ClassifyItem(TypedDict, total=False):
    """One item of `requests` of `classify`: its own task and input."""

    task: Required[str | None]
    input: Required[Input]
    truncate: bool
    special_tokens: bool


def one_or_many(input: Input | None, inputs: Sequence[Input] | None) -> dict[str, Any]:
    """The `input` or `inputs` part of a body.

    Raises:
        InvalidArgumentError: neither or both are given, or `inputs` is a text.
    """
    if (input is None) == (inputs is None):
        raise InvalidArgumentError("Give either input or inputs.", field="input")
    if input is not None:
        return {"input": input}
    if isinstance(inputs, (str, bytes)) or not inputs:
        raise InvalidArgumentError(
            "inputs is a list of one or more inputs; give a single text as input.", field="inputs"
        )
    return {"inputs": list(inputs)}


def _body(
    task: str | None,
    input: Input | None,
    inputs: Sequence[Input] | None,
    requests: Sequence[GenerateItem] | Sequence[ClassifyItem] | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    if requests is None:
        return {"task": task, **one_or_many(input, inputs), **settings}
    if task is not None or input is not None or inputs is not None:
        raise InvalidArgumentError(
            "requests has its own tasks and inputs; give no others with it.", field="requests"
        )
    if not requests:
        raise InvalidArgumentError("requests is a list of one or more requests.", field="requests")
    # The server uses what is beside `requests` as defaults of each item.
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
    return Request(
        "POST",
        "/v1/generate",
        body=encode_json(_body(task, input, inputs, requests, settings)),
        inference=True,
    )


def stream_request(
    task: str | None = None,
    *,
    input: Input | None = None,
    inputs: Sequence[Input] | None = None,
    requests: Sequence[GenerateItem] | None = None,
    **settings: Unpack[Settings],
) -> Request:
    """Generate, and receive each token as it comes.

    It takes the arguments of `generate`. The request is sent when you enter the stream or first read it. A
    failure of one item is an `ErrorEvent`; all others are raised. If you leave the `with` block early, the
    server stops working on it.
    """
    body = {**_body(task, input, inputs, requests, settings), "stream": True}
    return Request("POST", "/v1/generate", body=encode_json(body), inference=True)


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
        input: a text, or the fields of the version's template.
        inputs: a list of inputs.
        requests: for mixed tasks, a list of objects with `task`, `input` and settings that differ from
            `settings`.
        settings: see `Settings`.

    Returns:
        One result for each input, in the order of the inputs; a result may be a `FailedItem`.

    Raises:
        ApiError: the whole batch was refused, or every item failed.
    """
    request = generate_request(task, input=input, inputs=inputs, requests=requests, **settings)
    return Call(request, model_of(GenerateResponse))


def classify(
    task: str | None = None,
    *,
    input: Input | None = None,
    inputs: Sequence[Input] | None = None,
    requests: Sequence[ClassifyItem] | None = None,
    labels: Sequence[str] | None = None,
    truncate: bool | None = None,
    special_tokens: bool | None = None,
    deadline_seconds: float | None = None,
    priority: Priority | None = None,
) -> Call[ClassifyResponse]:
    """Rank labels by their probability after the input.

    Args:
        task: a reference, or None for the base model.
        input: a text, or the fields of the version's template.
        inputs: a list of inputs.
        requests: for mixed tasks, a list of objects with `task` and `input`. They share a batch.
        labels: the labels to choose from; by default the version's own.
        truncate: cut a text that is too long instead of refusing it.
        special_tokens: make sentinels of `<extra_id_0>` and so on.
        deadline_seconds: give up after this many seconds.
        priority: `batch` lets the tenant's other requests go first.

    Returns:
        One label with all probabilities for each input, in the order of the inputs.
    """
    optional = {
        "labels": None if labels is None else list(labels),
        "truncate": truncate,
        "special_tokens": special_tokens,
        "deadline_seconds": deadline_seconds,
        "priority": priority,
    }
    body = _body(task, input, inputs, requests, without_none(optional))
    return Call(
        Request("POST", "/v1/classify", body=encode_json(body), inference=True), model_of(ClassifyResponse)
    )


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
    special_tokens: bool | None = None,
    deadline_seconds: float | None = None,
    priority: Priority | None = None,
) -> Call[EnsembleResponse]:
    """Ask several prompts and let them vote.

    Args:
        ensemble: a stored ensemble's reference, or
        tasks: the members' references.
        input: a text, or template fields.
        inputs: a list of inputs.
        vote: `majority`.
        weights: one for each of `tasks`.
        labels: labels to choose from, in place of the members' own.
        max_new_tokens: for members that answer with free text.
        truncate: cut a text that is too long instead of refusing it.
        special_tokens: make sentinels of `<extra_id_0>` and so on.
        deadline_seconds: give up after this many seconds.
        priority: `batch` lets the tenant's other requests go first.

    Returns:
        For each input the common answer, the counts and every member's answer.
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
        "special_tokens": special_tokens,
        "deadline_seconds": deadline_seconds,
        "priority": priority,
    }
    body = {**who, **one_or_many(input, inputs), **without_none(optional)}
    return Call(
        Request("POST", "/v1/ensemble", body=encode_json(body), inference=True), model_of(EnsembleResponse)
    )


class InferenceMethods:
    """The methods of the client itself that ask the model."""

    generate = Method(generate)
    stream = StreamMethod(stream_request)
    classify = Method(classify)
    ensemble = Method(ensemble)
