"""The two clients. They have the same methods, blocking and awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import httpx2

from chorus import config
from chorus.batches import AsyncBatches, Batches
from chorus.errors import InvalidArgumentError
from chorus.evaluations import AsyncEvaluations, Evaluations
from chorus.http import MAX_CONNECTIONS, Connection, connection
from chorus.jobs import AsyncJobs, Jobs
from chorus.methods import AsyncOwner, SyncOwner
from chorus.retries import CallStatistics, RetryBudget, RetryPolicy
from chorus.routes.audit import AuditMethods
from chorus.routes.calibrations import CalibrationMethods
from chorus.routes.decisions import DecisionMethods
from chorus.routes.ensembles import EnsembleMethods
from chorus.routes.grants import EnsembleGrantMethods, PackGrantMethods, SharedMethods, TaskGrantMethods
from chorus.routes.inference import InferenceMethods
from chorus.routes.keys import KeyMethods
from chorus.routes.packs import PackMethods
from chorus.routes.service import ServiceMethods
from chorus.routes.tasks import TaskMethods
from chorus.routes.tenants import TenantMethods
from chorus.routes.usage import UsageMethods
from chorus.routes.versions import VersionMethods
from chorus.transports import AsyncTransport, SyncTransport
from chorus.tuning import AsyncFiles, AsyncTuning, Files, Tuning


class Tasks(TaskMethods, VersionMethods, CalibrationMethods, TaskGrantMethods, SyncOwner):
    """`client.tasks`: tasks, their versions, calibrations, aliases and grants."""


class AsyncTasks(TaskMethods, VersionMethods, CalibrationMethods, TaskGrantMethods, AsyncOwner):
    """`client.tasks`: tasks, their versions, calibrations, aliases and grants."""


class Ensembles(EnsembleMethods, EnsembleGrantMethods, SyncOwner):
    """`client.ensembles`: stored ensembles."""


class AsyncEnsembles(EnsembleMethods, EnsembleGrantMethods, AsyncOwner):
    """`client.ensembles`: stored ensembles."""


class Packs(PackMethods, PackGrantMethods, SyncOwner):
    """`client.packs`: decision packs."""


class AsyncPacks(PackMethods, PackGrantMethods, AsyncOwner):
    """`client.packs`: decision packs."""


class Tenants(TenantMethods, SyncOwner):
    """`client.tenants`: tenants, for operators."""


class AsyncTenants(TenantMethods, AsyncOwner):
    """`client.tenants`: tenants, for operators."""


class Keys(KeyMethods, SyncOwner):
    """`client.keys`: a tenant's keys."""


class AsyncKeys(KeyMethods, AsyncOwner):
    """`client.keys`: a tenant's keys."""


class Audit(AuditMethods, SyncOwner):
    """`client.audit`: who changed what."""


class AsyncAudit(AuditMethods, AsyncOwner):
    """`client.audit`: who changed what."""


def _connect(
    base_url: str | None,
    api_key: str | None,
    timeout_seconds: float | None,
    total_seconds: float | None,
    max_answer_bytes: int | None,
    max_connections: int,
) -> tuple[Connection, dict[str, object]]:
    for name, seconds in (("timeout_seconds", timeout_seconds), ("total_seconds", total_seconds)):
        if seconds is not None and not 0 < seconds <= config.LONGEST_SECONDS:
            raise InvalidArgumentError(
                f"{name} must be above 0 and at most {config.LONGEST_SECONDS}, or None for no limit.",
                field=name,
            )
    for name, count in (("max_answer_bytes", max_answer_bytes), ("max_connections", max_connections)):
        if count is not None and count < 1:
            raise InvalidArgumentError(f"{name} must be 1 or more.", field=name)
    url = config.parse_url(config.find_url(base_url))
    made = connection(url, config.find_key(api_key), timeout_seconds, total_seconds, max_answer_bytes)
    limits = httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    # A proxy that the environment names is not meant for this machine's own ports.
    return made, {"limits": limits, "trust_env": not config.is_loopback(url), "follow_redirects": False}


def _policy(retries: int | RetryPolicy) -> RetryPolicy:
    policy = retries if isinstance(retries, RetryPolicy) else RetryPolicy(retries=retries)
    if policy.retries < 0:
        raise InvalidArgumentError("retries must be 0 or more.", field="retries")
    return policy


class Client(InferenceMethods, DecisionMethods, ServiceMethods, UsageMethods, SharedMethods, SyncOwner):
    """A blocking client of a Chorus server; safe to share between threads.

    Args:
        base_url: the server's URL; default CHORUS_URL, else http://127.0.0.1:8000.
        api_key: default CHORUS_API_KEY, else the text of the file CHORUS_API_KEY_FILE; `""` for no key at
            all.
        timeout_seconds: for each wait on the network; None waits for ever. Keep it above `deadline_seconds`.
        total_seconds: for a whole call with its upload, retries, waits and answer; in a stream, for each
            event. None means no limit.
        max_answer_bytes: the largest answer that is read; in a stream, the largest event. None means no
            limit.
        retries: how often to try again, or a whole `RetryPolicy`.
        max_connections: how many connections may be open at once.
        transport: an httpx2 transport in place of the network, for tests.
        sleep: called to wait between attempts, in seconds; for tests.
        clock: gives monotonic seconds, for the retry budget and the limit of a call; for tests.

    Raises:
        ConfigurationError: the URL or the key cannot be used.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float | None = 120.0,
        total_seconds: float | None = config.TOTAL_SECONDS,
        max_answer_bytes: int | None = config.MAX_ANSWER_BYTES,
        retries: int | RetryPolicy = 3,
        max_connections: int = MAX_CONNECTIONS,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        connection, options = _connect(
            base_url, api_key, timeout_seconds, total_seconds, max_answer_bytes, max_connections
        )
        policy = _policy(retries)
        http = httpx2.Client(transport=transport, **options)  # type: ignore[arg-type]
        super().__init__(SyncTransport(http, connection, policy, RetryBudget(policy, clock), sleep, clock))
        self.tasks = Tasks(self._transport)
        self.ensembles = Ensembles(self._transport)
        self.packs = Packs(self._transport)
        self.files = Files(self._transport)
        self.tuning = Tuning(self._transport)
        self.evaluations = Evaluations(self._transport)
        self.batches = Batches(self._transport)
        self.jobs = Jobs(self._transport)
        self.tenants = Tenants(self._transport)
        self.keys = Keys(self._transport)
        self.audit = Audit(self._transport)

    @property
    def statistics(self) -> CallStatistics:
        """What this client has sent so far."""
        return self._transport.budget.statistics

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(InferenceMethods, DecisionMethods, ServiceMethods, UsageMethods, SharedMethods, AsyncOwner):
    """A client of a Chorus server whose methods are awaited. It takes the same arguments as `Client`."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float | None = 120.0,
        total_seconds: float | None = config.TOTAL_SECONDS,
        max_answer_bytes: int | None = config.MAX_ANSWER_BYTES,
        retries: int | RetryPolicy = 3,
        max_connections: int = MAX_CONNECTIONS,
        transport: httpx2.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        connection, options = _connect(
            base_url, api_key, timeout_seconds, total_seconds, max_answer_bytes, max_connections
        )
        policy = _policy(retries)
        http = httpx2.AsyncClient(transport=transport, **options)  # type: ignore[arg-type]
        super().__init__(AsyncTransport(http, connection, policy, RetryBudget(policy, clock), sleep, clock))
        self.tasks = AsyncTasks(self._transport)
        self.ensembles = AsyncEnsembles(self._transport)
        self.packs = AsyncPacks(self._transport)
        self.files = AsyncFiles(self._transport)
        self.tuning = AsyncTuning(self._transport)
        self.evaluations = AsyncEvaluations(self._transport)
        self.batches = AsyncBatches(self._transport)
        self.jobs = AsyncJobs(self._transport)
        self.tenants = AsyncTenants(self._transport)
        self.keys = AsyncKeys(self._transport)
        self.audit = AsyncAudit(self._transport)

    @property
    def statistics(self) -> CallStatistics:
        """What this client has sent so far."""
        return self._transport.budget.statistics

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
