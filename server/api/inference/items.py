"""One HTTP body, several items: what each asks for, and the dotted paths that its errors name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.api.schemas.inference import ClassifyBody, EnsembleBody, GenerateBody, GenerationSettings
from server.errors import InvalidInputError
from server.settings import Settings

Value = str | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Item:
    """One input for one task.

    Attributes:
        task: reference, or None for the base model.
        value: text or template fields.
        prefix: path of the item with its dot (`requests.3.`), or empty.
        input_field: path of `value`.
        truncate: cut a text that is too long.
        settings: the item's own; `beside` those next to `requests`.
        logprobs: answer with token log probabilities.
        named_by: path of the field that named the version, where it is not the item's `task`.
    """

    task: str | None
    value: Value
    input_field: str
    prefix: str = ""
    truncate: bool = False
    settings: GenerationSettings | None = None
    beside: GenerationSettings | None = None
    logprobs: bool = False
    named_by: str | None = None

    @property
    def task_field(self) -> str:
        """Path of the field that named the version."""
        return self.named_by or self.prefix + "task"


def generate_items(body: GenerateBody) -> list[Item]:
    """The items of a generate body, in order.

    Raises InvalidInputError when the body asks for none or two kinds.
    """
    if body.requests is None:
        if "task" not in body.model_fields_set:
            raise InvalidInputError(
                "task is required: a reference, or null for the base model.", field="task"
            )
        return [
            Item(
                body.task,
                value,
                field,
                truncate=bool(body.truncate),
                settings=body,
                logprobs=bool(body.logprobs),
            )
            for value, field in inputs_of(body)
        ]
    if body.input is not None or body.inputs is not None:
        raise InvalidInputError("Send one of input, inputs and requests.", field="requests")
    if "task" in body.model_fields_set:
        raise InvalidInputError("With requests, each one names its own task: remove this one.", field="task")
    return [
        Item(
            item.task,
            item.input,
            f"requests.{index}.input",
            prefix=f"requests.{index}.",
            truncate=bool(item.truncate if item.truncate is not None else body.truncate),
            settings=item,
            beside=body,
            logprobs=bool(item.logprobs if item.logprobs is not None else body.logprobs),
        )
        for index, item in enumerate(body.requests)
    ]


def classify_items(body: ClassifyBody) -> list[Item]:
    """The items of a classify body, in order."""
    return [Item(body.task, value, field, truncate=bool(body.truncate)) for value, field in inputs_of(body)]


def inputs_of(body: GenerateBody | ClassifyBody | EnsembleBody) -> Sequence[tuple[Value, str]]:
    """`(value, field)` of each input. How many there are was checked before the body was parsed.

    Raises InvalidInputError unless exactly one of input and inputs is there.
    """
    if (body.input is None) == (body.inputs is None):
        raise InvalidInputError("Send one of input (one) and inputs (a list).", field="input")
    if body.inputs is None:
        assert body.input is not None
        return [(body.input, "input")]
    return [(value, f"inputs.{index}") for index, value in enumerate(body.inputs)]


def weights_of(weights: Sequence[float] | None, members: int) -> list[float]:
    """A weight for each member of an ensemble, 1 where none are given.

    Raises InvalidInputError for another number of weights.
    """
    if weights is None:
        return [1.0] * members
    if len(weights) != members:
        raise InvalidInputError(
            f"There are {len(weights)} weights for {members} tasks: send one for each.", field="weights"
        )
    return [float(weight) for weight in weights]


def deadline_of(asked: float | None, settings: Settings) -> float | None:
    """The deadline of a request. Raises InvalidInputError when it asks for more than the server allows."""
    if asked is None:
        return settings.default_deadline_seconds
    if asked > settings.max_deadline_seconds:
        raise InvalidInputError(
            f"deadline_seconds is {asked:g}, the limit is {settings.max_deadline_seconds:g}.",
            field="deadline_seconds",
        )
    return asked
