"""Sampling settings. Each is declared once here, and all other code uses the declarations.

The API's schema and the defaults of versions take name, type, bounds and wording from here. Step plans and
the executor's arrays take the settings that have a `dtype`. To add a setting, add a field to `Sampling` and
let the executor use it (`executor/choosing.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from types import MappingProxyType
from typing import Any


class UnfitSettingsError(Exception):
    """Settings that contradict each other or do not fit. The caller knows what to call them.

    Attributes:
        message: what is wrong and what to do.
        names: the settings at fault, the main one first.
    """

    def __init__(self, message: str, *names: str) -> None:
        super().__init__(message)
        self.message = message
        self.names = names


LENGTH_PENALTY_RULES = ("t5x", "huggingface")
MAX_LOGIT_BIASES = 64

Refusal = Callable[[Any, int], str | None]
"""The reason why a search with this many beams cannot have this value, or None."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The declaration of one field of `Sampling`.

    Attributes:
        kind: its type.
        description: a sentence for callers.
        bounds: bounds of a value that a caller sends, by Pydantic's names (`ge`, `gt`, `le`).
        dtype: type of the executor's array, which has one number a row; None for a setting without one.
        with_beams: called if there is more than one beam.
        choices: the only values of a text; the executor's number is the place of one.
    """

    name: str
    kind: type
    default: Any
    description: str | None
    bounds: Mapping[str, float]
    dtype: str | None
    with_beams: Refusal | None
    choices: tuple[str, ...]

    def read(self, value: Any) -> Any:
        """A value from its JSON form: 2 for 2.0; a list of texts, or a single text; an object of biases by
        id."""
        if isinstance(value, Mapping):
            return tuple(sorted((int(id), float(bias)) for id, bias in value.items()))
        return (value,) if self.kind is tuple and isinstance(value, str) else self.kind(value)

    def number(self, value: Any) -> Any:
        """What the executor's array holds for a value."""
        return self.choices.index(value) if self.choices else value


def _setting(
    default: Any,
    description: str | None = None,
    dtype: str | None = None,
    with_beams: Refusal | None = None,
    choices: tuple[str, ...] = (),
    **bounds: float,
) -> Any:
    declared = {
        "description": description,
        "dtype": dtype,
        "with_beams": with_beams,
        "choices": choices,
        "bounds": bounds,
    }
    return field(default=default, metadata=declared)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request's tokens are chosen. It has been validated: the engine trusts it.

    Attributes:
        max_new_tokens, min_new_tokens: `</s>` counts as one.
        temperature: 0 is greedy, as always with beams.
        top_k: 0 switches it off.
        top_p: 1.0 switches it off.
        seed: the same seed, input and compiled shape give the same tokens, whoever the neighbours are.
        num_beams: 1 (no beam search) to 10.
        length_penalty: exponent of the rule's length, by which a finished beam's log probability is divided.
        length_penalty_rule: `t5x` divides by ((5 + length) / 6) ** length_penalty, `huggingface` by length **
            length_penalty; `</s>` counts. `executor/beams.py` says what else differs.
        repetition_penalty: logits of tokens already generated are divided by it if positive, else multiplied
            (Keskar et al. 2019, "CTRL", and Hugging Face); 1.0 switches it off.
        frequency_penalty, presence_penalty: a generated token's logit is lowered by the first times its count
            and by the second once (OpenAI's formula); 0.0 switches them off.
        no_repeat_ngram_size: no sequence of so many tokens is generated twice; 0 switches it off.
        logit_bias: `(id, bias)` pairs in order of ids; each bias is added to the id's logit.
        top_logprobs: how many of the likeliest tokens are told at each place, under the unmodified
            distribution.
        n: how many sequences to return; with beams at most `num_beams`, best first.
        stop: texts; generation ends with the first token that completes one of them.
    """

    max_new_tokens: int = _setting(32, "Most new tokens, including `</s>`.", "int32", ge=1)
    min_new_tokens: int = _setting(0, "`</s>` is not chosen before this many tokens.", "int32", ge=0)
    temperature: float = _setting(
        0.0,
        "How freely tokens are sampled; 0 always takes the likeliest.",
        "float32",
        lambda value, beams: (
            "Beam search needs temperature 0: remove temperature, or set num_beams to 1."
            if value > 0
            else None
        ),
        ge=0,
        le=100,
    )
    top_k: int = _setting(0, "Sample among the k likeliest tokens; 0 is off.", "int32", ge=0, le=1_000_000)
    top_p: float = _setting(
        1.0,
        "Sample among the likeliest tokens that together have probability p; 1 is off.",
        "float32",
        gt=0,
        le=1,
    )
    seed: int = _setting(0, "A 32-bit number; random if left out.", "uint32", ge=0, le=4_294_967_295)
    num_beams: int = _setting(
        1, "Number of beams of a beam search, which needs temperature 0.", "int32", ge=1, le=10
    )
    length_penalty: float = _setting(
        0.6, "Length penalty of a beam search: the exponent of its rule.", "float32", ge=-10, le=10
    )
    length_penalty_rule: str = _setting(
        "t5x",
        "`t5x` divides beams' log probabilities by ((5 + length) / 6) ^ length_penalty, `huggingface` by "
        "length ^ length_penalty.",
        "int32",
        choices=LENGTH_PENALTY_RULES,
    )
    repetition_penalty: float = _setting(
        1.0,
        "Makes generated tokens less likely: divides their positive logits and multiplies the others; 1 is "
        "off.",
        "float32",
        ge=0.01,
        le=100,
    )
    frequency_penalty: float = _setting(
        0.0,
        "Subtracted from a token's logit as often as the token was generated; 0 is off.",
        "float32",
        ge=-2,
        le=2,
    )
    presence_penalty: float = _setting(
        0.0,
        "Subtracted from the logit of every token that was generated; 0 is off.",
        "float32",
        ge=-2,
        le=2,
    )
    no_repeat_ngram_size: int = _setting(
        0, "No sequence of this many tokens is generated twice; 0 is off.", "int32", ge=0, le=10
    )
    logit_bias: tuple[tuple[int, float], ...] = _setting(())
    top_logprobs: int = _setting(
        0,
        "Answer with log probabilities, and with those of this many likeliest tokens at each place.",
        "int32",
        ge=0,
        le=20,
    )
    n: int = _setting(
        1,
        "Number of sequences to return.",
        with_beams=lambda value, beams: (
            f"n is {value}, more than the {beams} beams: raise num_beams or lower n."
            if value > beams
            else None
        ),
        ge=1,
        le=64,
    )
    stop: tuple[str, ...] = _setting(
        (),
        with_beams=lambda value, beams: (
            "Beam search takes no stop texts: remove stop, or set num_beams to 1." if value else None
        ),
    )

    @staticmethod
    def of(values: Mapping[str, Any]) -> Sampling:
        """Sampling settings from values by name. Each value may be in its JSON form."""
        return Sampling(**{name: SETTINGS[name].read(value) for name, value in values.items()})

    @property
    def slots(self) -> int:
        """How many decode slots the request needs at once."""
        return max(self.num_beams, self.n)

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn, so that the seed does not matter."""
        return self.temperature <= 0

    def on_device(self) -> Sampling:
        """The settings that a step plan carries. The executor never reads the host's settings."""
        if _host_values(self) == _HOST_DEFAULTS:
            return self
        return Sampling(**{name: getattr(self, name) for name in DEVICE_SETTINGS})


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        each.name: Setting(each.name, type(each.default), each.default, **each.metadata)
        for each in fields(Sampling)
    }
)
"""Every setting by name, in order."""

DEVICE_DTYPES: Mapping[str, str] = MappingProxyType(
    {name: each.dtype for name, each in SETTINGS.items() if each.dtype is not None}
)
"""The settings of which the executor reads one number a row, by name, in order."""

DEVICE_SETTINGS = (*DEVICE_DTYPES, "logit_bias")
"""Every setting that the executor reads."""

_numbers = attrgetter(*DEVICE_DTYPES)


def device_values(sampling: Sampling) -> tuple[Any, ...]:
    """The numbers of `DEVICE_DTYPES`, in order."""
    named = zip(DEVICE_DTYPES, _numbers(sampling), strict=True)
    return tuple(SETTINGS[name].number(value) for name, value in named)


_HOST_ONLY = [name for name in SETTINGS if name not in DEVICE_SETTINGS]
_HOST_DEFAULTS = tuple(SETTINGS[name].default for name in _HOST_ONLY)
_host_values = attrgetter(*_HOST_ONLY)
_WITH_BEAMS = {name: each.with_beams for name, each in SETTINGS.items() if each.with_beams is not None}


def over_defaults(asked: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings asked for, on top of a version's defaults; both by name.

    If the settings ask for one kind of search, the default of the other kind is dropped.
    """
    merged = {name: defaults[name] for name in SETTINGS if defaults.get(name) is not None}
    merged |= asked
    if asked.get("num_beams", 1) > 1 and "temperature" not in asked:
        merged.pop("temperature", None)
    if asked.get("temperature") and "num_beams" not in asked:
        merged.pop("num_beams", None)
    return merged


def check_together(settings: Mapping[str, Any]) -> None:
    """Refuse values, by name, that contradict each other.

    Raises:
        UnfitSettingsError: says which values.
    """
    beams, n = settings.get("num_beams", 1), settings.get("n", 1)
    if settings.get("length_penalty", 0) < 0 and settings.get("length_penalty_rule", "t5x") == "t5x":
        raise UnfitSettingsError(
            "length_penalty is below 0, which only length_penalty_rule huggingface has: set that rule, or a "
            "penalty from 0 to 10.",
            "length_penalty",
            "length_penalty_rule",
        )
    if beams > 1:
        for name, refusal in _WITH_BEAMS.items():
            message = refusal(settings.get(name, SETTINGS[name].default), beams)
            if message is not None:
                raise UnfitSettingsError(message, name, "num_beams")
    elif n > 1 and settings.get("temperature", 0) == 0:
        raise UnfitSettingsError(
            "n sequences of greedy decoding are all the same: set temperature above 0, or num_beams.",
            "n",
            "temperature",
            "num_beams",
        )
