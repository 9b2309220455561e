"""How a limit is told to callers: the body of a 429, and the headers of answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from chorus_server.errors import QuotaExceededError
from chorus_server.tenancy.budget_line import BudgetLine

Owner = Literal["tenant", "key"]

_WORDS = {"requests": "requests", "tokens": "tokens", "work_units": "work units"}
_WINDOWS = {
    "per_minute": "a minute",
    "per_month": "a month",
    "in_flight": "in flight at one time",
    "queued": "queued at one time",
}
_SECONDS = {"per_minute": 60, "per_month": 30 * 86_400}


@dataclass(frozen=True, slots=True)
class Told:
    """A limit at one moment.

    Attributes:
        owner: whose it is.
        full_in, window_seconds: until all may be spent again, and in all.
        now: the moment, on the monotonic clock.
    """

    owner: Owner
    line: BudgetLine
    remaining: int
    full_in: float
    window_seconds: float
    now: float

    @property
    def policy(self) -> str:
        """Its name in headers."""
        unit = self.line.unit.replace("_", "-")
        return f'"{self.owner}-{unit}-{self.line.window.removeprefix("per_")}"'


def told(owner: Owner, line: BudgetLine, now: float, today: datetime) -> Told:
    """How a limit stands."""
    full_in = line.full_in(now, today)
    window = _SECONDS.get(line.window, 0.0)
    return Told(owner, line, line.remaining(now), full_in, window, now)


def refusal(owner: Owner, line: BudgetLine, amount: int, now: float, today: datetime) -> QuotaExceededError:
    """The error for whoever asks for more than may be spent. It says never to try again where one request
    asks for more than the whole limit."""
    most, used = line.most or 0, line.used(now)
    what, window = _WORDS[line.unit], _WINDOWS[line.window]
    whose = "The tenant" if owner == "tenant" else "This key"
    wait = max(1.0, line.wait(amount, now, today))
    if amount > most:
        wait = math.inf
        advice = "send fewer at once" if line.unit == "requests" else "send less, or lower max_new_tokens"
        message = f"{whose} may use {most} {what} {window}, and this asks for {amount}: {advice}."
    elif line.places:
        message = f"{whose} may have {most} {what} {window}, and has {used}: wait for answers."
    else:
        message = (
            f"{whose} may use {most} {what} {window}, has used {used} and asks for {amount} more: try again "
            f"in {_duration(wait)}."
        )
    quota: dict[str, Any] = {
        "of": owner,
        "limit": line.name,
        "window": None if line.places else line.window.removeprefix("per_"),
        "most": most,
        "used": used,
    }
    return QuotaExceededError(message, code="limit_exceeded", retry_after_seconds=wait, quota=quota)


def quota_headers(limits: Sequence[Told]) -> Mapping[str, str]:
    """`x-ratelimit-...`, `RateLimit`, `RateLimit-Policy` and the warning of a month, as far as there are
    limits. Of several in requests, or in tokens, `x-ratelimit-...` tells the one of which least is left.
    """
    windows = [each for each in limits if each.window_seconds and each.line.most is not None]
    headers: dict[str, str] = {}
    for unit in ("requests", "tokens"):
        mine = [each for each in windows if each.line.unit == unit]
        if mine:
            tight = min(mine, key=lambda each: each.remaining)
            headers[f"x-ratelimit-limit-{unit}"] = str(tight.line.most)
            headers[f"x-ratelimit-remaining-{unit}"] = str(tight.remaining)
            headers[f"x-ratelimit-reset-{unit}"] = _duration(tight.full_in)
    if windows:
        headers["RateLimit-Policy"] = ", ".join(
            f"{each.policy};q={each.line.most};w={each.window_seconds:.0f}" for each in windows
        )
        headers["RateLimit"] = ", ".join(
            f"{each.policy};r={each.remaining};t={math.ceil(each.full_in)}" for each in windows
        )
    warned = [each for each in limits if each.line.warns]
    if warned:
        headers["Chorus-Budget-Warning"] = ", ".join(
            f"{each.policy};used={each.line.used(0.0)};soft={each.line.soft}" for each in warned
        )
    return headers


def _duration(seconds: float) -> str:
    """`6m0s`, `1d2h0m0s`, `20ms`, as OpenAI writes it."""
    if seconds < 1:
        return f"{math.ceil(1000 * seconds)}ms"
    left, written = math.ceil(seconds), ""
    for letter, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if written or left >= size or letter == "s":
            written += f"{left // size}{letter}"
        left %= size
    return written
