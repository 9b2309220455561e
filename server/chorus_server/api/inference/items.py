"""One HTTP body has several items: what each asks for, and the dotted paths that its errors name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chorus_server.api.schemas.inference import (
    ClassifyBody,
    EnsembleBody,
    GenerateBody,
    GenerateItem,
    GenerationSettings,
)
from chorus_server.engine.requests import InputPart, PromptHandle
from chorus_server.engine.sampling import SETTINGS
from chorus_server.errors import InvalidInputError
from prompts_store.records import PromptVersion

Value = bytes | Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Item:
    """One input for one task, from the body to its answer.

    Attributes:
        task: a reference, or None for the base model.
        value: a text or template fields, as UTF-8.
        input_field, task_field: dotted paths of `value` and of the field that named the version.
        truncate: whether to cut a text that is too long.
        logprobs: whether the answer has token log probabilities.
        special_tokens: whether `<extra_id_N>` is a sentinel; None until the item is prepared, if the version
            decides.
        settings: the sampling settings that the request gives this item, by name.
        paths: dotted path of each of these settings.
        version: the version that `task` means; filled in, like the next two, when the item is prepared.
        input: what the engine reads: the prompt and ids that end in `</s>`.
        truncated: whether the text was cut.
    """

    task: str | None
    value: Value
    input_field: str
    task_field: str = "task"
    truncate: bool = False
    logprobs: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    special_tokens: bool | None = None
    version: PromptVersion | None = None
    input: tuple[InputPart, ...] = ()
    truncated: bool = False

    @property
    def task_name(self) -> str:
        """`tenant/task`; empty for the base model."""
        return f"{self.version.tenant}/{self.version.task}" if self.version is not None else ""

    @property
    def identity(self) -> dict[str, Any]:
        """The version that answers; nulls for the base model."""
        if self.version is None:
            return {"task": None, "version": None, "digest": None}
        digest = self.version.manifest.digest
        return {"task": self.task_name, "version": self.version.number, "digest": digest}

    @property
    def tokens(self) -> int:
        """Length of the prepared input in positions."""
        return sum(part.length if isinstance(part, PromptHandle) else len(part) for part in self.input)

    def usage(self, output_tokens: int) -> dict[str, int]:
        """Token counts for its answer."""
        prompt_tokens = self.version.manifest.length if self.version is not None else 0
        return {
            "input_tokens": self.tokens,
            "prompt_tokens": prompt_tokens,
            "output_tokens": output_tokens,
        }


def generate_items(body: GenerateBody) -> list[Item]:
    """The items of a generate body, in order.

    Raises InvalidInputError if the body has none or more than one kind of input.
    """
    settings, paths = sent_settings(body, "")
    _check_kind(body)
    if body.requests is None:
        truncate, logprobs = bool(body.truncate), bool(body.logprobs)
        return [
            Item(body.task, value, field, "task", truncate, logprobs, settings, paths, body.special_tokens)
            for value, field in inputs_of(body)
        ]
    return [
        _mixed_item(body, each, f"requests.{index}.", settings, paths)
        for index, each in enumerate(body.requests)
    ]


def _mixed_item(
    body: GenerateBody, item: GenerateItem, prefix: str, settings: Mapping[str, Any], paths: Mapping[str, str]
) -> Item:
    """One item of `requests`. Settings that it leaves out come from beside `requests`."""
    own, own_paths = sent_settings(item, prefix)
    return Item(
        item.task,
        item.input,
        f"{prefix}input",
        f"{prefix}task",
        bool(item.truncate if item.truncate is not None else body.truncate),
        bool(item.logprobs if item.logprobs is not None else body.logprobs),
        {**settings, **own},
        {**paths, **own_paths},
        item.special_tokens if item.special_tokens is not None else body.special_tokens,
    )


def sent_settings(said: GenerationSettings, prefix: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings in a part of the body, and their dotted paths."""
    names = said.model_fields_set & SETTINGS.keys()
    settings = {name: value for name in names if (value := getattr(said, name)) is not None}
    return settings, {name: prefix + name for name in settings}


def classify_items(body: ClassifyBody) -> list[Item]:
    """The items of a classify body, in order. Raises InvalidInputError as `generate_items`."""
    truncate, special = bool(body.truncate), body.special_tokens
    _check_kind(body)
    if body.requests is None:
        return [
            Item(body.task, value, field, truncate=truncate, special_tokens=special)
            for value, field in inputs_of(body)
        ]
    return [
        Item(
            item.task,
            item.input,
            f"requests.{index}.input",
            f"requests.{index}.task",
            bool(item.truncate) if item.truncate is not None else truncate,
            special_tokens=item.special_tokens if item.special_tokens is not None else special,
        )
        for index, item in enumerate(body.requests)
    ]


def _check_kind(body: GenerateBody | ClassifyBody) -> None:
    """Raise InvalidInputError unless a task stands beside the inputs, or in each of the requests."""
    if body.requests is None:
        if "task" not in body.model_fields_set:
            raise InvalidInputError(
                "task is required: a reference, or null for the base model.", field="task"
            )
        return
    if body.input is not None or body.inputs is not None:
        raise InvalidInputError("Send one of input, inputs and requests.", field="requests")
    if "task" in body.model_fields_set:
        raise InvalidInputError(
            "With requests, each item names its own task: remove this field.", field="task"
        )


def inputs_of(body: GenerateBody | ClassifyBody | EnsembleBody) -> Sequence[tuple[Value, str]]:
    """`(value, field)` of each input. Their number was checked before the body was parsed.

    Raises InvalidInputError unless the body has exactly one of input and inputs.
    """
    if (body.input is None) == (body.inputs is None):
        raise InvalidInputError("Send one of input (one) and inputs (a list).", field="input")
    if body.inputs is None:
        assert body.input is not None
        return [(body.input, "input")]
    return [(value, f"inputs.{index}") for index, value in enumerate(body.inputs)]


def weights_of(weights: Sequence[float] | None, members: int) -> list[float]:
    """A weight for each member of an ensemble; 1 if none are given.

    Raises InvalidInputError if the number of weights is wrong.
    """
    if weights is None:
        return [1.0] * members
    if len(weights) != members:
        raise InvalidInputError(
            f"There are {len(weights)} weights for {members} tasks: send one for each.", field="weights"
        )
    return [float(weight) for weight in weights]
