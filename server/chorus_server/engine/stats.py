"""What the engine holds at one instant: every gauge, and for people a closer look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chorus_server.engine.requests import RequestKind

LISTED_TASKS = 64
"""Most tasks that are told by name at an instant."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine holds.

    Attributes:
        permits: accepted requests that have no outcome yet or still hold something.
        queued: requests that wait for the device.
        loading: requests that wait for prompts from the store.
        prefilling, decoding: requests on the device.
        slots_in_use, slots_total: decode slots; one that is being released still counts.
        encoder_memories: encoded inputs held for decoding, one for each group of slots.
        rows_capacity, rows_resident, rows_in_use, rows_pinned: rows of the device's prompt table.
            `rows_in_use` are those that a step in flight reads.
        host_bytes, host_held_bytes, host_prompts: the host tier. Held bytes are those that a waiting request
            needs.
        loads_in_flight: fetches from the store that are under way.
        in_flight_steps: steps that were dispatched and not read.
        steps: steps dispatched since the start.
        prompts_resident: prompts in the device's table.
        queued_units: work units that the requests which wait, also for prompts, may cost.
        resident_tasks: the tasks used last whose prompts are in the device's table, latest first.
        waiting_tasks: tasks of requests that wait. Both lists have `LISTED_TASKS` at most.
        draining, dead: whether new requests are refused, and why.
    """

    permits: int = 0
    queued: int = 0
    loading: int = 0
    prefilling: int = 0
    decoding: int = 0
    slots_in_use: int = 0
    slots_total: int = 0
    encoder_memories: int = 0
    rows_capacity: int = 0
    rows_resident: int = 0
    rows_in_use: int = 0
    rows_pinned: int = 0
    host_bytes: int = 0
    host_held_bytes: int = 0
    host_prompts: int = 0
    loads_in_flight: int = 0
    in_flight_steps: int = 0
    steps: int = 0
    prompts_resident: int = 0
    queued_units: int = 0
    resident_tasks: tuple[str, ...] = ()
    waiting_tasks: tuple[str, ...] = ()
    draining: bool = False
    dead: bool = False

    @property
    def running(self) -> int:
        """Requests on the device."""
        return self.prefilling + self.decoding

    @property
    def prompts_fit(self) -> int:
        """How many prompts the device's table holds if all are as long as those in it."""
        if not self.rows_resident:
            return self.rows_capacity
        return self.rows_capacity * self.prompts_resident // self.rows_resident

    @property
    def idle(self) -> bool:
        """Whether nothing is held for any request."""
        return not (
            self.permits
            or self.queued
            or self.loading
            or self.prefilling
            or self.decoding
            or self.slots_in_use
            or self.encoder_memories
            or self.rows_in_use
            or self.host_held_bytes
            or self.loads_in_flight
            or self.in_flight_steps
        )


@dataclass(frozen=True, slots=True)
class TenantQueue:
    """A tenant's requests that wait, for the device or a prompt, and the work units that they may cost."""

    tenant: str
    requests: int
    units: int


@dataclass(frozen=True, slots=True)
class PrefillSummary:
    """The prefill step whose result was read last.

    Attributes:
        tasks: how many of its requests each task has; the base model's name is empty.
        tokens: those that belonged to requests; `padded_tokens` are all tokens of the bucket.
        at: when the result was read, on the engine's clock.
    """

    kind: RequestKind
    tasks: Mapping[str, int]
    tokens: int
    padded_tokens: int
    at: float


@dataclass(frozen=True, slots=True)
class EngineLook:
    """Whose work the engine has, beside its gauges.

    Attributes:
        on_device: requests on the device by task, as in `PrefillSummary`.
        prefill: None before the first.
        prefill_seconds_ago: how long ago that was.
        queue: every tenant with waiting requests.
    """

    stats: EngineStats = field(default_factory=EngineStats)
    on_device: Mapping[str, int] = field(default_factory=dict)
    prefill: PrefillSummary | None = None
    prefill_seconds_ago: float = 0.0
    queue: tuple[TenantQueue, ...] = ()
