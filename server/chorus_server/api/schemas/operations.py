"""The answer of `GET /v1/operations`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from chorus_server.api.schemas.common import AnswerModel, StoreTrouble
from chorus_server.engine.requests import RequestKind
from prompts_store.jobs.records import JobKind


class RequestsNow(AnswerModel):
    """Requests that the engine has, by where they are."""

    queued: int = Field(description="They wait for the device.")
    loading: int = Field(description="They wait for a prompt.")
    prefilling: int
    decoding: int


class SlotsNow(AnswerModel):
    """Decode slots."""

    in_use: int
    total: int


class PromptRowsNow(AnswerModel):
    """Rows of the device's prompt table."""

    resident: int = Field(description="They hold a prompt.")
    in_use: int = Field(description="A step in flight reads them.")
    pinned: int
    capacity: int
    prompts: int = Field(description="Prompts in the table.")


class TaskNow(AnswerModel):
    """A task and its requests on the device."""

    task: str | None = Field(description="`tenant/task`; null for the base model.")
    requests: int


class OtherTasks(AnswerModel):
    """What the caller may not name, and what is too much to list, added up."""

    tasks: int
    requests: int


class PrefillNow(AnswerModel):
    """The batch whose prefill step ended last."""

    kind: RequestKind
    requests: int
    tasks: int = Field(description="How many different ones.")
    tokens: int = Field(description="Those of requests.")
    padded_tokens: int = Field(description="All tokens of the bucket.")
    padding: float = Field(description="Share of the bucket that was padding, 0 to 1.")
    seconds_ago: float


class BatchNow(AnswerModel):
    """Requests on the device, by task, most first."""

    tasks: list[TaskNow]
    others: OtherTasks
    last_prefill: PrefillNow | None


class TenantNow(AnswerModel):
    """A tenant's requests that wait, for the device or a prompt."""

    tenant: str
    requests: int
    work_units: int


class OtherTenants(AnswerModel):
    """All other tenants, added up."""

    tenants: int
    requests: int
    work_units: int


class QueueNow(AnswerModel):
    """What waits, by tenant, most work first."""

    tenants: list[TenantNow]
    others: OtherTenants


class PromptsNow(AnswerModel):
    """Tasks that the caller may name."""

    resident: list[str] = Field(description="With prompts on the device, the one used last first.")
    waiting: list[str] = Field(description="With requests that wait.")


class JobNow(AnswerModel):
    """A job that this process runs."""

    id: str
    kind: JobKind
    tenant: str
    created_at: datetime
    started_at: datetime | None
    attempt: int


class JobsNow(AnswerModel):
    """What this process runs."""

    running: list[JobNow]
    others: int = Field(description="How many jobs of others it runs beside.")


class CompileNow(AnswerModel):
    """A program that was compiled or read from the compile cache."""

    at: datetime
    program: str
    cause: str
    seconds: float


class CompilesNow(AnswerModel):
    """What was compiled since the start."""

    programs: int = Field(description="That requests use; all were ready before the first.")
    from_cache: int = Field(description="How many of them the compile cache had.")
    seconds: float = Field(description="Until the last of them was ready.")
    by_cause: dict[str, int] = Field(description="Compiles, also of small programs; `request` stays at 0.")
    last: list[CompileNow] = Field(description="The last 20, newest first.")


class MemoryUse(AnswerModel):
    """A part of the memory plan."""

    use: str
    bytes: int
    settings: str = Field(description="What changes it.")


class MemoryNow(AnswerModel):
    """The plan that was made at the start, for one device."""

    uses: list[MemoryUse]
    total: int = Field(description="The larger of activations and temporaries counts.")
    limit: int = Field(description="Bytes that may be used.")


class CollectionNow(AnswerModel):
    """How the last collection of this process ended."""

    at: datetime
    outcome: Literal["collected", "failed", "refused"]
    blobs: int
    freed_bytes: int
    message: str = Field(description="Why nothing was collected, for operators.")


class ProblemFound(AnswerModel):
    """A promise of the store that is broken."""

    where: str = Field(description="The digest, task, alias, job or tenant.")
    message: str


class ProblemsFound(AnswerModel):
    """Problems of one kind, and what to do about them."""

    kind: str
    meaning: str
    advice: str
    count: int
    first: list[ProblemFound] = Field(description="Up to ten of them.")


class StoreCheckAnswer(AnswerModel):
    """A check of the store: all of it was read back and compared with its digests and sums."""

    started_at: datetime
    ended_at: datetime | None = Field(description="Null while it is under way.")
    clean: bool | None = Field(description="Whether nothing is wrong; null while that is not known.")
    versions: int
    blobs: int
    files: int = Field(description="Contents of data files.")
    orphans: int = Field(
        description="Blobs and contents that nothing names, of uploads under way or cut off."
    )
    temporary_files: int
    problems: list[ProblemsFound]
    fence_fault: str | None = Field(description="Why row-level security does not stand; null if it does.")
    message: str = Field(description="Why the check failed; empty if it did not.")


class StoreNow(AnswerModel):
    """The store as this process sees it."""

    trouble: StoreTrouble | None = Field(description="As in `/readyz`; checked each second.")
    last_collection: CollectionNow | None = Field(description="Null if this process made none.")
    collection_due_at: datetime | None = Field(
        description="When the next one is due, in whichever process; null if that is not known."
    )
    check: StoreCheckAnswer | None = Field(
        description="The check that this process began last, for operators; null if it made none."
    )


class LeaseHolderNow(AnswerModel):
    """A process that holds leases in the database. One without a lease is not seen."""

    name: str
    leases: int
    of: Literal["jobs", "budgets"]
    expires_at: datetime
    this: bool = Field(description="Whether it is the process that answers.")


class TickAnswer(AnswerModel):
    """Some ten seconds of the last hour, and what happened in them."""

    ended: datetime
    seconds: float = Field(description="How long it was; more than ten on a busy machine.")
    answered: int = Field(description="Requests of the engine; so are the next three.")
    failed: int
    cancelled: int
    refused: int
    tokens_in: int = Field(description="Of requests that reached the device.")
    tokens_out: int
    median_seconds: float | None = Field(description="Of answered requests, from submission to outcome.")
    p99_seconds: float | None
    queued: int = Field(description="Requests that waited for the device at its end.")
    queued_units: int
    slots_in_use: int


class OperationsAnswer(AnswerModel):
    """What this process does now, and did in the last hour."""

    process: str | None = Field(description="Host and process id, for operators.")
    status: str = Field(description="`loading`, `compiling`, `ready`, `draining` or `dead`.")
    requests: RequestsNow
    slots: SlotsNow
    prompt_rows: PromptRowsNow
    batch: BatchNow
    queue: QueueNow
    prompts: PromptsNow
    jobs: JobsNow
    compiles: CompilesNow | None
    memory: MemoryNow | None
    store: StoreNow
    lease_holders: list[LeaseHolderNow] | None = Field(
        description="For operators, while the database answers."
    )
    hour: list[TickAnswer] = Field(description="Oldest first.")
