"""From reference to immutable version, held until the answer is out; store calls leave the event loop."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from prompts_store.errors import StoreError
from prompts_store.records import EnsembleVersion, PromptVersion, Reference
from prompts_store.references import parse_reference
from prompts_store.store import PromptStore
from server.api.http.errors import StoreAnswerError
from server.api.http.offload import Offload
from server.errors import ModelMismatchError, NotFoundError

P = ParamSpec("P")
T = TypeVar("T")

MAX_CACHED = 4096


@dataclass(slots=True)
class Grip:
    """Versions by reference, and the holds that keep their blobs."""

    versions: dict[str, PromptVersion]
    holds: ExitStack

    def close(self) -> None:
        """Let go."""
        self.holds.close()


class PromptLibrary:
    """The store as the routes see it.

    A resolved reference is reused for at most `staleness_seconds`; content is never cached here. A change
    through this process empties the cache at once, one through another process is seen within that time.

    Args:
        store: the versioned store.
        offload: threads for its blocking calls.
        staleness_seconds: 0 resolves each time.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: PromptStore,
        offload: Offload,
        staleness_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self._offload = offload
        self._staleness = staleness_seconds
        self._clock = clock
        self._cache: OrderedDict[tuple[str, str], tuple[float, PromptVersion]] = OrderedDict()
        self._changes = 0

    def close(self) -> None:
        """End the threads and the store."""
        self._offload.close()
        self.store.close()

    async def read(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call of the store on its threads."""
        return await self._offload.run(function, *args, **kwargs)

    async def take(self, function: Callable[[], T], release: Callable[[T], None]) -> T:
        """The same for a call that takes hold of something; see `Offload.acquire`."""
        return await self._offload.acquire(function, release)

    async def write(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a call that changes something: what was resolved before is forgotten."""
        try:
            return await self._offload.run(function, *args, **kwargs)
        finally:
            self._changes += 1
            self._cache.clear()

    @asynccontextmanager
    async def held(
        self, wanted: Iterable[tuple[str, str]], tenant: str, fingerprint: str
    ) -> AsyncIterator[Mapping[str, PromptVersion]]:
        """Versions of references, held (their blobs stay) until the block ends.

        Args:
            wanted: `(reference, field)` pairs; the field is named when the reference is bad.
            tenant: that a bare name means.
            fingerprint: of the resident base model.

        Raises:
            StoreAnswerError: an unknown or malformed reference.
            ModelMismatchError: the version belongs to another base.
        """
        fields: dict[str, str] = {}
        for reference, field in wanted:
            fields.setdefault(reference, field)
        if not fields:
            yield {}
            return
        known = {reference: self._cached(tenant, reference) for reference in fields}
        changes, started = self._changes, self._clock()
        grip = await self.take(lambda: self._grip(fields, known, tenant, fingerprint), Grip.close)
        with closing(grip):
            for reference, version in grip.versions.items():
                if known[reference] is None:
                    self._remember(tenant, reference, version, changes, started)
            yield grip.versions

    async def resolve(self, reference: str, tenant: str, field: str = "task") -> PromptVersion:
        """The version that a reference names now. Raises StoreAnswerError with `field`."""
        return await self.read(self._resolve, reference, tenant, field)

    def _grip(
        self,
        fields: Mapping[str, str],
        known: Mapping[str, PromptVersion | None],
        tenant: str,
        fingerprint: str,
    ) -> Grip:
        """On a thread of the store: resolve what is not known and hold it all, or hold nothing."""
        grip = Grip({}, ExitStack())
        try:
            for reference, field in fields.items():
                version = known[reference] or self._resolve(reference, tenant, field)
                check_base(version, fingerprint, field)
                try:
                    grip.holds.enter_context(self.store.hold(version))
                except StoreError as error:
                    raise StoreAnswerError(error, field) from None
                grip.versions[reference] = version
        except BaseException:
            grip.close()
            raise
        return grip

    def _resolve(self, reference: str, tenant: str, field: str) -> PromptVersion:
        try:
            parsed = parse_reference(reference, tenant=tenant, field=field)
            require_own(parsed, tenant, field, "unknown_task")
            return self.store.resolve(parsed, tenant=tenant, field=field)
        except StoreError as error:
            raise StoreAnswerError(error, field) from None

    def _cached(self, tenant: str, reference: str) -> PromptVersion | None:
        found = self._cache.get((tenant, reference))
        return found[1] if found is not None and self._clock() < found[0] else None

    def _remember(
        self, tenant: str, reference: str, version: PromptVersion, changes: int, started: float
    ) -> None:
        if changes != self._changes:  # a change while the store answered may have made this old already
            return
        self._cache[(tenant, reference)] = (started + self._staleness, version)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)

    async def ensemble(self, reference: str, tenant: str, field: str = "ensemble") -> EnsembleVersion:
        """The ensemble version that a reference names now. Raises StoreAnswerError with `field`."""
        try:
            parsed = parse_reference(reference, tenant=tenant, field=field)
            require_own(parsed, tenant, field, "unknown_ensemble")
            return await self.read(self.store.resolve_ensemble, parsed, tenant=tenant, field=field)
        except StoreError as error:
            raise StoreAnswerError(error, field) from None


def check_base(version: PromptVersion, fingerprint: str, field: str) -> None:
    """Refuse a version that was tuned on another base model; one that does not say is taken on trust."""
    base = version.manifest.base_fingerprint
    if base is not None and base != fingerprint:
        raise ModelMismatchError(
            f"The version belongs to the base model {base[:12]}, this server runs {fingerprint[:12]}: "
            "use a version made for this model.",
            field=field,
        )


def require_own(reference: Reference, tenant: str, field: str, code: str) -> None:
    """Nothing is shared between tenants yet: another tenant's object is answered as if there were none."""
    if reference.tenant != tenant:
        raise NotFoundError("There is no such object in this tenant.", field=field, code=code)
