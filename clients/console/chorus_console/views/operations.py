"""What the process that answers does now, and how its last hour went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from starlette.responses import Response

from chorus import ApiError
from chorus.types import ModelInfo, Tick
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import same

_OUTCOMES = ("answered", "failed", "cancelled", "refused")
_MOST_POINTS = 90
"""Of a curve: as many as can be told apart."""


async def show(visit: Visit) -> Response:
    """The page. The parts that it is made of are asked for again: what is now every few seconds, the hour
    more rarely."""
    part = visit.request.query_params.get("part") if visit.is_fragment else None
    now = await visit.client.operations(minutes=0 if part == "now" else 60)
    if part == "now":
        return await visit.show("operations_now.html", now=now)
    if part == "hour":
        return await visit.show("operations_hour.html", curves=curves(now.hour))
    return await visit.show(
        "operations.html", now=now, curves=curves(now.hour), model=await _model(visit),
        same=[
            same("GET", "/v1/operations", "now = client.operations()", "chorus", "operations"),
            same("POST", "/v1/store/check", "check = client.check_store()",
                 "chorus", "store", "check").doing("Check the store"),
        ],
    )  # fmt: skip


async def check(visit: Visit) -> Response:
    """Begin to read the whole store back."""
    await visit.client.check_store()
    return visit.go(local("operations"))


async def _model(visit: Visit) -> ModelInfo | None:
    """The base model; None until it is loaded."""
    try:
        return await visit.client.model()
    except ApiError:
        return None


def curves(hour: Sequence[Tick]) -> list[dict[str, Any]]:
    """The last hour, as `console.js` draws it."""
    some = -(-len(hour) // _MOST_POINTS) or 1
    spans = [hour[at : at + some] for at in range(0, len(hour), some)]
    if not spans:
        return []
    end = hour[-1].ended
    x = [round((span[-1].ended - end).total_seconds() / 60, 1) for span in spans]

    def line(name: str, value: Callable[[Sequence[Tick]], float | None]) -> dict[str, Any]:
        return {"name": name, "values": [_short(value(span)) for span in spans]}

    def rate(name: str, count: Callable[[Tick], int], seconds: float) -> dict[str, Any]:
        return line(name, lambda span: seconds * sum(map(count, span)) / _seconds(span))

    def worst(name: str, value: Callable[[Tick], float | None]) -> dict[str, Any]:
        return line(name, lambda span: max((v for t in span if (v := value(t)) is not None), default=None))

    drawn = (
        ("Requests a minute", [rate(name, attrgetter(name), 60) for name in _OUTCOMES]),
        ("Latency in ms", [
            worst("half within", lambda tick: _ms(tick.median_seconds)),
            worst("99 % within", lambda tick: _ms(tick.p99_seconds)),
        ]),
        ("Work units that wait", [worst("work units", lambda tick: tick.queued_units)]),
        ("Slots in use", [worst("slots", lambda tick: tick.slots_in_use)]),
        ("Tokens a second", [
            rate("in", lambda tick: tick.tokens_in, 1), rate("out", lambda tick: tick.tokens_out, 1)
        ]),
    )  # fmt: skip
    return [{"title": title, "unit": "minutes", "x": x, "lines": lines} for title, lines in drawn]


def _seconds(span: Sequence[Tick]) -> float:
    return max(1e-9, sum(tick.seconds for tick in span))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _short(value: float | None) -> float | None:
    """With three digits, since a curve has no more."""
    if value is None:
        return None
    short = float(f"{value:.3g}")
    return int(short) if short == int(short) else short
