"""What a process does now, and did in the last hour."""

from __future__ import annotations

from datetime import datetime

from chorus.types.base import Wire
from chorus.types.service import StoreTrouble


class RequestsNow(Wire):
    """Requests that the engine has, by where they are."""

    queued: int
    loading: int
    prefilling: int
    decoding: int


class SlotsNow(Wire):
    """Decode slots."""

    in_use: int
    total: int


class PromptRowsNow(Wire):
    """Rows of the device's prompt table, and how many `prompts` are in it."""

    resident: int
    in_use: int
    pinned: int
    capacity: int
    prompts: int


class TaskOnDevice(Wire):
    """A task and its requests on the device; None is the base model."""

    task: str | None = None
    requests: int


class OtherTasks(Wire):
    """Tasks that are not named, and their requests."""

    tasks: int
    requests: int


class LastPrefill(Wire):
    """The batch whose prefill step ended last; `padding` is a share."""

    kind: str
    requests: int
    tasks: int
    tokens: int
    padded_tokens: int
    padding: float
    seconds_ago: float


class BatchNow(Wire):
    """Requests on the device, by task."""

    tasks: list[TaskOnDevice]
    others: OtherTasks
    last_prefill: LastPrefill | None = None


class TenantQueue(Wire):
    """A tenant's requests that wait."""

    tenant: str
    requests: int
    work_units: int


class OtherTenants(Wire):
    """Tenants that are not named, and what of theirs waits."""

    tenants: int
    requests: int
    work_units: int


class QueueNow(Wire):
    """What waits, by tenant."""

    tenants: list[TenantQueue]
    others: OtherTenants


class PromptsNow(Wire):
    """Tasks with prompts on the device, and with requests that wait."""

    resident: list[str]
    waiting: list[str]


class RunningJob(Wire):
    """A job that the process runs."""

    id: str
    kind: str
    tenant: str
    created_at: datetime
    started_at: datetime | None = None
    attempt: int


class JobsNow(Wire):
    """Jobs that the process runs; `others` counts those that are not named."""

    running: list[RunningJob]
    others: int


class CompileNow(Wire):
    """A program that was compiled."""

    at: datetime
    program: str
    cause: str
    seconds: float


class CompilesNow(Wire):
    """What was compiled since the start; `last` is the newest first."""

    programs: int
    from_cache: int
    seconds: float
    by_cause: dict[str, int]
    last: list[CompileNow]


class MemoryUse(Wire):
    """A part of the memory plan, and the settings that change it."""

    use: str
    bytes: int
    settings: str


class MemoryPlan(Wire):
    """Where one device's memory goes."""

    uses: list[MemoryUse]
    total: int
    limit: int


class LastCollection(Wire):
    """`collected`, `failed` or `refused`, with the reason in `message`."""

    at: datetime
    outcome: str
    blobs: int
    freed_bytes: int
    message: str


class StoreProblem(Wire):
    """A promise of the store that is broken."""

    where: str
    message: str


class StoreProblems(Wire):
    """Problems of one kind, what to do about them, and the first of them."""

    kind: str
    meaning: str
    advice: str
    count: int
    first: list[StoreProblem]


class StoreCheck(Wire):
    """A check of the store by one process.

    Attributes:
        ended_at: None while it is under way.
        clean: whether nothing is wrong; None while that is not known.
        fence_fault: why row-level security does not stand; None if it does.
        message: why the check failed.
    """

    started_at: datetime
    ended_at: datetime | None = None
    clean: bool | None = None
    versions: int
    blobs: int
    files: int
    orphans: int
    temporary_files: int
    problems: list[StoreProblems]
    fence_fault: str | None = None
    message: str = ""


class StoreNow(Wire):
    """The store as the process sees it; `check` is for operators."""

    trouble: StoreTrouble | None = None
    last_collection: LastCollection | None = None
    collection_due_at: datetime | None = None
    check: StoreCheck | None = None


class LeaseHolder(Wire):
    """A process that holds leases of `jobs` or `budgets`; `this` is the one that answers."""

    name: str
    leases: int
    of: str
    expires_at: datetime
    this: bool


class Tick(Wire):
    """Some ten seconds: what happened in them, and what waited at their end."""

    ended: datetime
    seconds: float
    answered: int
    failed: int
    cancelled: int
    refused: int
    tokens_in: int
    tokens_out: int
    median_seconds: float | None = None
    p99_seconds: float | None = None
    queued: int
    queued_units: int
    slots_in_use: int


class Operations(Wire):
    """What the process that answers does now, and did in the last hour.

    Attributes:
        process, lease_holders: for operators.
        compiles, memory: None until the server is ready.
        hour: oldest first.
    """

    process: str | None = None
    status: str
    requests: RequestsNow
    slots: SlotsNow
    prompt_rows: PromptRowsNow
    batch: BatchNow
    queue: QueueNow
    prompts: PromptsNow
    jobs: JobsNow
    compiles: CompilesNow | None = None
    memory: MemoryPlan | None = None
    store: StoreNow
    lease_holders: list[LeaseHolder] | None = None
    hour: list[Tick]
