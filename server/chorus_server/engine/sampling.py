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


Refusal = Callable[[Any, int], str | None]
"""The reason why a search with this many beams cannot have this value, or None."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The declaration of one field of `Sampling`.

    Attributes:
        kind: its type.
        description: a sentence for callers.
        bounds: bounds of a value that a caller sends, by Pydantic's names (`ge`, `gt`, `le`).
        dtype: type of the executor's array; None for a setting that only the host reads.
        with_beams: called if there is more than one beam.
    """

    name: str
    kind: type
    default: Any
    description: str | None
    bounds: Mapping[str, float]
    dtype: str | None
    with_beams: Refusal | None

    def read(self, value: Any) -> Any:
        """A value from its JSON form: 2 for 2.0; a list of texts, or a single text."""
        return (value,) if self.kind is tuple and isinstance(value, str) else self.kind(value)


def _setting(
    default: Any,
    description: str | None = None,
    dtype: str | None = None,
    with_beams: Refusal | None = None,
    **bounds: float,
) -> Any:
    declared = {"description": description, "dtype": dtype, "with_beams": with_beams, "bounds": bounds}
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
        num_beams: 1 (no beam search), 2, 4 or 8.
        length_penalty: a finished beam's score is log probability / ((5 + length) / 6) ** length_penalty.
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
    num_beams: int = _setting(1, "Number of beams of a beam search, which needs temperature 0.", "int32")
    length_penalty: float = _setting(
        0.6, "Length penalty of a beam search (T5X's alpha).", "float32", ge=0, le=10
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
        return Sampling(**dict(zip(DEVICE_DTYPES, device_values(self), strict=True)))


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
"""The settings that the executor reads, by name, in order."""

device_values: Callable[[Sampling], tuple[Any, ...]] = attrgetter(*DEVICE_DTYPES)
"""Their default values, in order."""

_HOST_ONLY = [name for name in SETTINGS if name not in DEVICE_DTYPES]
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
