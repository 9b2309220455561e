"""What processes ask the store about budgets, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from prompts_store.errors import InvalidError
from prompts_store.text import shown

Window = Literal["per_minute", "in_flight", "queued", "per_month"]
WINDOWS: tuple[Window, ...] = get_args(Window)

Unit = Literal["requests", "tokens", "work_units"]
UNITS: tuple[Unit, ...] = get_args(Unit)

LIMIT_NAMES: tuple[str, ...] = tuple(f"{window}.{unit}" for window in WINDOWS for unit in UNITS)
"""`per_minute.requests`, ...: the paths of the limits' document."""


@dataclass(frozen=True, slots=True)
class LeaseAsk:
    """What one process has and wants of one limit.

    Attributes:
        key: id of the key whose limit it is; empty for the tenant's own.
        limit: of `LIMIT_NAMES`.
        most: the limit; None for one that only counts.
        held: what the process has: of a window, taken and not spent; of the others, in use or ready for it.
        back: what it gives back to a window, or below 0 what it spent without having it. `held` is what it
            has after that.
        need: what requests wait for.
        ahead: what it would like to have besides, for the next second.
    """

    tenant: str
    key: str
    limit: str
    most: int | None
    held: int
    back: int = 0
    need: int = 0
    ahead: int = 0

    def __post_init__(self) -> None:
        if self.limit not in LIMIT_NAMES:
            raise InvalidError(f"{shown(self.limit)} is not a limit that is leased.", field="limit")

    @property
    def window(self) -> Window:
        """What the limit counts in."""
        return next(window for window in WINDOWS if self.limit.startswith(window))


@dataclass(frozen=True, slots=True)
class LeaseAnswer:
    """What a process may spend, and how things stand.

    Attributes:
        granted: what it has from now on besides what it held.
        free: what nobody has taken after that.
        full_in_us: of a minute: microseconds until all of it is free again.
        used: of a month: what all have spent, this process's `held` and `granted` among it.
        others: how many other processes have some of it, or had in the last seconds.
    """

    granted: int
    free: int
    full_in_us: int = 0
    used: int = 0
    others: int = 0
