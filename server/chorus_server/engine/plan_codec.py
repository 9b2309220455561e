"""Step plans as JSON, so that a run can be recorded and replayed: same weights, same prompts, same tokens.

Each plan is one object, in which `kind` names its class and the fields have their names. Numbers are kept
exactly: JSON prints the shortest decimal that reads back as the same float.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from chorus_server.engine.plans import Admission, DecodePlan, PrefillPlan, RowLoad, ScorePlan, StepPlan
from chorus_server.engine.sampling import DEVICE_SETTINGS, Sampling
from chorus_server.errors import InvalidInputError
from chorus_server.strict_json import parse_strictly

_KINDS: dict[type[Any], str] = {PrefillPlan: "prefill", ScorePlan: "score", DecodePlan: "decode"}


def encode_plan(plan: StepPlan) -> str:
    """One line of JSON."""
    fields = asdict(plan)
    for admission in fields.get("admissions", ()):
        admission["sampling"] = {name: admission["sampling"][name] for name in DEVICE_SETTINGS}
    return json.dumps({"kind": _KINDS[type(plan)], **fields}, separators=(",", ":"), allow_nan=False)


def decode_plan(line: str) -> StepPlan:
    """The inverse of `encode_plan`.

    Raises:
        InvalidInputError: the line is not a plan; the error says what is wrong.
    """
    try:
        fields = parse_strictly(line)
        kind = fields.pop("kind")
        if kind not in _READERS:
            raise InvalidInputError(f"a plan's kind is prefill, score or decode, got {kind!r}", field="kind")
        return _READERS[kind](fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"this line is not a step plan: {error}", field="plan") from error


def record_plans(plans: Iterable[StepPlan]) -> str:
    """Plans in order, one on each line."""
    return "".join(encode_plan(plan) + "\n" for plan in plans)


def read_plans(text: str) -> Iterator[StepPlan]:
    """The inverse of `record_plans`. Raises InvalidInputError like `decode_plan`."""
    return (decode_plan(line) for line in text.splitlines() if line)


def _tuples(value: Any) -> Any:
    """Turn JSON lists, at any depth, back into tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _loads(fields: dict[str, Any]) -> tuple[RowLoad, ...]:
    return tuple(RowLoad(load["digest"], tuple(load["rows"])) for load in fields.pop("loads"))


def _admission(fields: dict[str, Any]) -> Admission:
    sampling = Sampling(**_plain(fields["sampling"]))
    return Admission(fields["row"], fields["block"], tuple(fields["slots"]), sampling)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _tuples(value) for name, value in fields.items()}


def _prefill(fields: dict[str, Any]) -> PrefillPlan:
    loads = _loads(fields)
    admissions = tuple(_admission(each) for each in fields.pop("admissions"))
    return PrefillPlan(**_plain(fields), admissions=admissions, loads=loads)


def _score(fields: dict[str, Any]) -> ScorePlan:
    loads = _loads(fields)
    return ScorePlan(**_plain(fields), loads=loads)


def _decode(fields: dict[str, Any]) -> DecodePlan:
    return DecodePlan(**_plain(fields))


_READERS: dict[str, Callable[[dict[str, Any]], StepPlan]] = {
    "prefill": _prefill,
    "score": _score,
    "decode": _decode,
}
