"""One inference request until it is answered: who calls, until when, and its items prepared for the
engine."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from fastapi import Request as HttpRequest

from chorus_server.api.door.early import check_early, deadline_of
from chorus_server.api.http.context import AskedVersion, context_of
from chorus_server.api.http.traces import RequestTrace
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.prepare import prepare_item, text_bytes
from chorus_server.api.inference.submit import cancel
from chorus_server.api.inference.turns import in_turns
from chorus_server.api.services import Services, Serving, services_of
from chorus_server.awake import awake
from chorus_server.engine.handle import RequestHandle
from chorus_server.engine.requests import Origin, Priority, Request
from chorus_server.errors import CancelledError, ChorusError, DeadlineExceededError
from chorus_server.tenancy.principal import Principal
from chorus_server.tenancy.quota import quota_headers
from prompts_store.records import PromptVersion

LONG_TEXT_BYTES = 20_000
"""Requests with more text than this are tokenised off the event loop."""

Fill = Callable[[Item, PromptVersion | None], Item]
"""Gives an item the value that its version's template needs; as long as the one before."""


def _as_it_is(item: Item, version: PromptVersion | None) -> Item:
    return item


FEW_ITEMS = 256
"""Up to this many engine requests are submitted on the event loop."""


@dataclass(frozen=True, slots=True)
class Call:
    """The caller, and what the call needs.

    Attributes:
        priority: the class of its requests within the tenant.
        deadline: when the answer must be ready, on the clock; None waits for ever.
        settle: called when the engine has all requests.
        headers: of the answer, whatever it is; what may still be used is told there.
        trace: its spans; None if it is not recorded.
        asked: the versions that its items are for; filled as they are submitted.
        clock: gives monotonic seconds.
    """

    services: Services
    serving: Serving
    principal: Principal
    request_id: str
    deadline: float | None
    settle: Callable[[], None]
    headers: dict[str, str]
    priority: Priority = "interactive"
    trace: RequestTrace | None = None
    asked: set[AskedVersion] = field(default_factory=set)
    clock: Callable[[], float] = awake

    async def submit(self, requests: Sequence[Request]) -> list[RequestHandle | ChorusError]:
        """`reserve` and `submit_reserved`."""
        await self.reserve(requests)
        return await self.submit_reserved(requests)

    async def reserve(self, requests: Sequence[Request]) -> None:
        """Take what the requests may cost out of what the caller may use.

        Raises:
            QuotaExceededError: it is too much.
            DeadlineExceededError: the database did not say in time.
        """
        budgets = self.services.budgets
        try:
            async with self.in_time():
                await budgets.reserve(self.principal, requests)
        finally:
            self.headers.update(quota_headers(budgets.limits_of(self.principal)))

    def release(self, requests: Sequence[Request]) -> None:
        """Give back what was reserved for requests that the engine never had."""
        self.services.budgets.release(request.origin.request_id for request in requests)

    async def submit_reserved(self, requests: Sequence[Request]) -> list[RequestHandle | ChorusError]:
        """Submit requests to the engine, all at the same instant. Many are submitted off the event loop.

        Raises OverloadedError if too many calls wait for the text threads.
        """
        try:
            answers = await self._submit_all(requests)
        except BaseException:
            self.release(requests)
            raise
        pairs = zip(requests, answers, strict=True)
        self.release([request for request, answer in pairs if isinstance(answer, ChorusError)])
        return answers

    async def _submit_all(self, requests: Sequence[Request]) -> list[RequestHandle | ChorusError]:
        submit_all = self.serving.engine.submit_all
        try:
            if len(requests) <= FEW_ITEMS:
                return submit_all(requests)
            return await self.services.text.acquire(partial(submit_all, requests), cancel)
        finally:
            if self.trace is not None and self.trace.admitted is None:
                self.trace.admitted = self.clock()
            self.settle()

    def left(self) -> float | None:
        """Seconds until the deadline, for the engine. Raises DeadlineExceededError if none are left."""
        if self.deadline is None:
            return None
        left = self.deadline - self.clock()
        if left <= 0:
            raise _late()
        return left

    def origin(self, index: int, item: Item) -> Origin:
        """The origin of one item. Its id is made of the request's id, the item's position and a token: two
        requests may have the same id, and the engine accepts an id only once.

        Raises DeadlineExceededError like `left`.
        """
        version = item.version
        self.asked.add(("base", None) if version is None else (item.task_name, version.number))
        return Origin(
            request_id=f"{self.request_id}.{index}.{secrets.token_hex(6)}",
            tenant=self.principal.tenant,
            task=item.task_name,
            weight=self.principal.weight,
            priority=self.priority,
            deadline_seconds=self.left(),
            key=self.principal.key or "",
            digest=version.manifest.digest if version is not None else "",
            call=self.request_id,
            item=index,
            version=version.number if version is not None else None,
            traceparent=self.trace.traceparent if self.trace is not None else "",
        )

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """The time before the engine has the request; awaits inside the block end at the deadline.

        Raises:
            DeadlineExceededError: it passed.
        """
        try:
            async with asyncio.timeout(self.left()):
                yield
        except TimeoutError:
            raise _late() from None


def _late() -> DeadlineExceededError:
    return DeadlineExceededError(
        "The deadline passed before the engine had the request: allow more time, send less at once, or try "
        "again later."
    )


def call_of(
    request: HttpRequest, principal: Principal, deadline_seconds: float | None, priority: Priority
) -> Call:
    """The call that an HTTP request makes. Its deadline counts from when the request arrived.

    Raises:
        InvalidInputError: the deadline is longer than the server allows.
        NotReadyError, EngineDeadError: the server takes no requests.
        DeadlineExceededError: reading the body took too long.
        OverloadedError, QuotaExceededError: too many requests are waiting.
    """
    services, context = services_of(request), context_of(request)
    serving = services.ready()
    seconds = deadline_of(deadline_seconds, services.settings)
    deadline = None if seconds is None else context.started + seconds
    call = Call(
        services,
        serving,
        principal,
        context.request_id,
        deadline,
        context.settle,
        context.headers,
        priority,
        context.trace,
        context.asked,
    )
    check_early(services, principal, call.left(), context.headers)
    return call


@asynccontextmanager
async def prepared_items(
    call: Call, items: Sequence[Item], fill: Fill = _as_it_is
) -> AsyncIterator[list[Item]]:
    """Every item resolved and tokenised, with its version held until the block ends.

    All items are validated before any runs.

    Raises:
        ChorusError: the first item that is not valid, with its field.
        DeadlineExceededError: it took too long.
    """
    wanted = [(item.task, item.task_field) for item in items if item.task is not None]
    fingerprint = call.serving.base.fingerprint
    async with AsyncExitStack() as stack:
        async with call.in_time():
            caller, library = call.principal, call.services.library
            held = library.held(wanted, caller.tenant, fingerprint, patterns=caller.tasks)
            versions = await stack.enter_async_context(held)
            pairs = [(item, versions[item.task] if item.task is not None else None) for item in items]
            prepared = await prepare_all(call, pairs, fill)
        yield prepared


async def prepare_all(
    call: Call, pairs: Sequence[tuple[Item, PromptVersion | None]], fill: Fill = _as_it_is
) -> list[Item]:
    """Inputs for the engine. Much text is tokenised on a thread, so that other requests go on, and only as
    long as the caller waits.

    Raises DeadlineExceededError between two items: nobody works on an answer that comes too late.
    """
    vocabulary, max_tokens = call.serving.vocabulary, call.serving.limits.max_input_tokens
    left = threading.Event()

    def one(item: Item, version: PromptVersion | None) -> Item:
        if left.is_set():
            raise CancelledError("The caller left before the texts were tokenised.")
        call.left()
        return prepare_item(fill(item, version), version, vocabulary, max_tokens=max_tokens)

    if sum(text_bytes(item.value) for item, _ in pairs) <= LONG_TEXT_BYTES:
        return await in_turns(lambda pair: one(*pair), pairs)
    try:
        return await call.services.text.run(lambda: [one(item, version) for item, version in pairs])
    finally:
        left.set()
