"""Configuration of the engine: plain and frozen, with units in the names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chorus_server.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the scheduler spends one device.

    Attributes:
        max_queued_requests: how many requests may wait (loading or queued); beyond that, new ones are refused
            with
            `overloaded`. A tenant with little waiting may still enter, up to an eighth more.
        max_queued_per_tenant: how many requests of one tenant may wait; beyond that, its new ones are refused
            with
            `quota_exceeded`. With None, only the bound above applies.
        decode_tokens_per_dispatch: decode steps in one `DecodePlan`.
        prefill_token_budget: padded input tokens B * L of one prefill step. The smallest B of a length always
            runs.
        max_padding_waste: the share of what a row takes of a prefill step's padded tokens that a step of
            fewer rows would save. Beyond it, rows are left for the next step. In [0, 1).
        batch_invariant: use one fixed `(B, L)` for each class of input lengths, so that load cannot change an
            answer.
        max_in_flight_steps: how many steps may be dispatched and unread; 2 keeps the device busy while the
            host reads.
        lookahead_requests: how far down the fair order a batch looks for rows that fit.
        reserved_slots: free slots of a block shape that are kept for tenants below their fair share, if more
            than one tenant was seen in the last `tenant_memory_seconds`.
        tenant_memory_seconds: how long a tenant without requests still counts as active.
        protect_decode_rounds: how many decode steps follow a prefill step before one of a tenant above its
            fair share, while a tenant far below its own is decoding. For so many at most, answers of the
            former wait.
        host_prompt_bytes: byte budget of the host tier, which holds prompts in the compute dtype.
        pinned_prompt_rows: device rows that pinned prompts may take. A request whose prompts need more than
            the remaining rows is refused.
        loader_threads: how many prompts are fetched from the store at once.
        compute_dtype: `float32` or `bfloat16`; the dtype of prompt rows.
        default_deadline_seconds: for requests that set none; None waits for ever.
        shed_unmeetable: refuse or drop a request whose deadline cannot be met at the recent speed.
        step_timeout_seconds: if a device step takes longer, the engine is dead; None means no limit.
        watchdog_interval_seconds: how often the watchdog checks deadlines and steps.
        journal_path: append-only admission journal; None keeps the last `journal_entries` in memory.
        journal_entries: length of the in-memory journal.
        background_share: the least share of the time that background work (training) gets while it wants the
            device. With 0 it gets the device only when no request needs it. Below 1.
        eos_id: id of `</s>`.
        check_integrity: check every counter whenever the engine falls idle; for tests.
    """

    max_queued_requests: int = 1024
    max_queued_per_tenant: int | None = None
    decode_tokens_per_dispatch: int = 4
    prefill_token_budget: int = 4096
    max_padding_waste: float = 0.25
    batch_invariant: bool = False
    max_in_flight_steps: int = 2
    lookahead_requests: int = 256
    reserved_slots: int = 1
    tenant_memory_seconds: float = 10.0
    protect_decode_rounds: int = 4
    host_prompt_bytes: int = 256 * 1024 * 1024
    pinned_prompt_rows: int = 0
    loader_threads: int = 2
    compute_dtype: str = "float32"
    default_deadline_seconds: float | None = None
    shed_unmeetable: bool = True
    step_timeout_seconds: float | None = 120.0
    watchdog_interval_seconds: float = 0.25
    journal_path: Path | None = None
    journal_entries: int = 4096
    background_share: float = 0.0
    eos_id: int = 1
    check_integrity: bool = False

    def __post_init__(self) -> None:
        for name in (
            "max_queued_requests",
            "decode_tokens_per_dispatch",
            "prefill_token_budget",
            "max_in_flight_steps",
            "lookahead_requests",
            "protect_decode_rounds",
            "loader_threads",
            "journal_entries",
        ):
            _at_least_one(name, getattr(self, name))
        if self.max_queued_per_tenant is not None:
            _at_least_one("max_queued_per_tenant", self.max_queued_per_tenant)
        if not 0 <= self.max_padding_waste < 1:
            raise InvalidInputError(
                f"max_padding_waste must be at least 0 and below 1, got {self.max_padding_waste}",
                field="max_padding_waste",
            )
        if not 0 <= self.background_share < 1:
            raise InvalidInputError(
                f"background_share must be at least 0 and below 1, got {self.background_share}",
                field="background_share",
            )
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise InvalidInputError(
                f"compute_dtype must be float32 or bfloat16, got {self.compute_dtype!r}",
                field="compute_dtype",
            )


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise InvalidInputError(f"{name} must be at least 1, got {value}", field=name)
