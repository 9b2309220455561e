"""From a reference to an immutable version, held until the answer is sent. Store calls run off the event
loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from chorus_server.api.http.errors import StoreAnswerError
from chorus_server.api.http.offload import Offload
from chorus_server.api.library.store_health import StoreHealth
from chorus_server.changes.memory import SEEN_SECONDS, Memory
from chorus_server.errors import ModelMismatchError, OverloadedError
from prompts_store.errors import StoreError
from prompts_store.grants.records import GrantKind, Right
from prompts_store.grants.rows import unknown
from prompts_store.records import EnsembleVersion, PackVersion, PromptVersion, Reference
from prompts_store.store import PromptStore
from prompts_store.tasks.references import parse_reference
from prompts_store.tenants.records import Change
from prompts_store.tenants.task_patterns import matches_any

P = ParamSpec("P")
T = TypeVar("T")

_OF_TASKS = frozenset(
    {
        "alias_moved",
        "alias_removed",
        "task_deleted",
        "version_deleted",
        "version_calibrated",
        "task_shared",
        "task_unshared",
    }
)
# What a suspended tenant has shared is answered to nobody.
_OF_TENANTS = frozenset({"tenant_suspended", "tenant_deleted", "tenant_purged"})

ASK_SECONDS = 0.5
"""How long a caller who has a spare answer waits for the store's answer."""


@dataclass(slots=True)
class Grip:
    """Versions by reference, and the holds that keep their blobs from being collected."""

    versions: dict[str, PromptVersion]
    holds: ExitStack

    def close(self) -> None:
        """Let go."""
        self.holds.close()


class PromptLibrary:
    """The store as the routes use it.

    A resolved reference is reused, without a thread, the disk or the database, until the change feed names a
    change of it; while neither the feed nor the store can be read, for `STALE_SECONDS`. A change through this
    process is seen at once.

    Args:
        store: the versioned store.
        readers: threads for calls that only read. They never wait for a writer.
        writers: threads for calls that may wait for the publish lock.
        fresh_seconds: how long what was resolved is reused where the feed is not read; 0 resolves each time.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: PromptStore,
        readers: Offload,
        writers: Offload,
        fresh_seconds: float = SEEN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.health = StoreHealth(store, clock)
        self._readers = readers
        self._writers = writers
        # By the tenant that asks, which a bare name means, and the reference.
        self._versions: Memory[tuple[str, str], PromptVersion] = Memory(clock, fresh_seconds=fresh_seconds)
        self._ensembles: Memory[tuple[str, str], EnsembleVersion] = Memory(clock, fresh_seconds=fresh_seconds)
        self._packs: Memory[tuple[str, str], PackVersion] = Memory(clock, fresh_seconds=fresh_seconds)

    def close(self) -> None:
        """Stop the threads and close the store."""
        self.health.close()
        self._readers.close()
        self._writers.close()
        self.store.close()

    async def read(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call of the store that only reads."""
        return await self._readers.run(function, *args, **kwargs)

    async def save(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that writes but changes no reference's meaning: for files, jobs, upkeep."""
        return await self._writers.run(function, *args, **kwargs)

    async def take(self, function: Callable[[], T], release: Callable[[T], None]) -> T:
        """Run a call that takes hold of something; see `Offload.acquire`."""
        return await self._writers.acquire(function, release)

    async def write(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that changes references. What was resolved before is forgotten."""
        try:
            answer = await self._writers.run(function, *args, **kwargs)
        except BaseException:
            self._versions.doubt()
            self._ensembles.doubt()
            self._packs.doubt()
            raise
        self.forget()
        return answer

    def changed(self, changes: Sequence[Change]) -> None:
        """Drop what changes concern."""
        tenants = {change.tenant for change in changes if change.kind in _OF_TENANTS}
        named = {(change.tenant, change.subject.partition("@")[0]) for change in changes}
        if any(change.kind in _OF_TASKS for change in changes) or tenants:
            self._versions.drop_where(
                lambda _, version: version.tenant in tenants or (version.tenant, version.task) in named
            )
        if any(change.kind.startswith("ensemble_") for change in changes) or tenants:
            self._ensembles.drop_where(
                lambda _, made: made.tenant in tenants or (made.tenant, made.name) in named
            )

        if any(change.kind.startswith("pack_") or change.kind in _OF_TASKS for change in changes) or tenants:
            self._packs.drop_where(
                lambda _, made: made.tenant in tenants or (made.tenant, made.name) in named
            )

    def forget(self) -> None:
        """Drop every resolved reference."""
        self._versions.forget()
        self._ensembles.forget()
        self._packs.forget()

    def confirm(self, at: float) -> None:
        """At that time all else was as it was resolved."""
        self._versions.confirm(at)
        self._ensembles.confirm(at)
        self._packs.confirm(at)

    @asynccontextmanager
    async def held(
        self,
        wanted: Iterable[tuple[str, str]],
        tenant: str,
        fingerprint: str,
        *,
        patterns: Sequence[str] | None = None,
    ) -> AsyncIterator[Mapping[str, PromptVersion]]:
        """Versions of references, held until the block ends, so that their blobs stay.

        Args:
            wanted: `(reference, field)` pairs; the field is named when the reference is bad.
            tenant: that asks, and that a bare name means.
            fingerprint: of the resident base model.
            patterns: of the names that the caller may use; None for any.

        Raises:
            StoreAnswerError: an unknown or malformed reference.
            ModelMismatchError: the version belongs to another base.
        """
        fields: dict[str, str] = {}
        for reference, field in wanted:
            fields.setdefault(reference, field)
        if patterns is not None:
            for reference, field in fields.items():
                _parsed(reference, tenant, field, patterns, "task")
        cache, asked = self._versions, self._versions.asking()
        fresh = _found(fields, lambda reference: cache.fresh((tenant, reference)))
        if len(fresh) == len(fields):
            grip = self._grip_known(fields, fresh, fingerprint)
        else:
            spare = _found(fields, lambda reference: cache.spare((tenant, reference)))
            said = await self.ask(
                lambda: self._grip(fields, fresh, tenant, fingerprint),
                Grip.close,
                spared=len(spare) == len(fields),
            )
            grip = said if said is not None else self._grip_known(fields, spare, fingerprint)
            if said is not None:
                new = {
                    (tenant, name): version for name, version in said.versions.items() if name not in fresh
                }
                cache.keep(new, asked)
        with closing(grip):
            yield grip.versions

    async def resolve(
        self,
        reference: str,
        tenant: str,
        field: str = "task",
        *,
        patterns: Sequence[str] | None = None,
        right: Right = "infer",
    ) -> PromptVersion:
        """The version that a reference names now; another tenant's only with a right to it.

        Raises StoreAnswerError with `field`.
        """
        return await self.read(self._resolve, reference, tenant, field, patterns, right)

    async def ensemble(
        self, reference: str, tenant: str, field: str = "ensemble", *, patterns: Sequence[str] | None = None
    ) -> EnsembleVersion:
        """The ensemble version that a reference names, as fresh as `held` has it.

        Raises StoreAnswerError with `field`.
        """
        if patterns is not None:
            _parsed(reference, tenant, field, patterns, "ensemble")
        cache, asked, key = self._ensembles, self._ensembles.asking(), (tenant, reference)
        found = cache.fresh(key)
        if found is not None:
            return found
        spare = cache.spare(key)
        said = await self.ask(
            lambda: self._resolve_ensemble(reference, tenant, field), spared=spare is not None
        )
        if said is not None:
            cache.keep({key: said}, asked)
            return said
        assert spare is not None
        return spare

    async def pack(
        self, reference: str, tenant: str, field: str = "model", *, patterns: Sequence[str] | None = None
    ) -> PackVersion | None:
        """The pack version that a reference names, as fresh as `held` has it; None if it names a task, or
        nothing that the caller may name.

        Raises StoreAnswerError with `field`: the reference is malformed; the pack has no such version.
        """
        try:
            parsed = parse_reference(reference, tenant=tenant, field=field)
        except StoreError as error:
            raise StoreAnswerError(error, field) from None
        if not matches_any(patterns, parsed.task, owner=parsed.tenant, tenant=tenant):
            return None
        cache, asked, key = self._packs, self._packs.asking(), (tenant, reference)
        if self._versions.fresh(key) is not None:
            return None
        found = cache.fresh(key)
        if found is not None:
            return found
        spare = cache.spare(key)
        said = await self.ask(
            lambda: self._no_task_but_pack(parsed, tenant, field),
            spared=spare is not None or self._versions.spare(key) is not None,
        )
        if said is None:
            return spare
        for made in said:
            cache.keep({key: made}, asked)
            return made
        return None

    async def resolve_pack(
        self, reference: str, tenant: str, field: str = "pack", *, patterns: Sequence[str] | None = None
    ) -> PackVersion:
        """The pack version that a reference names now. Raises StoreAnswerError with `field`."""
        return await self.read(self._resolve_pack, reference, tenant, field, patterns)

    async def resolve_ensemble(self, reference: str, tenant: str, field: str = "ensemble") -> EnsembleVersion:
        """The ensemble version that a reference names now. Raises StoreAnswerError with `field`."""
        return await self.read(self._resolve_ensemble, reference, tenant, field)

    async def ask(
        self, question: Callable[[], T], release: Callable[[T], None] | None = None, *, spared: bool
    ) -> T | None:
        """The store's answer; None if it does not come soon and the caller has a spare answer."""
        if spared and not self.health.worth_asking():
            return None
        try:
            async with asyncio.timeout(ASK_SECONDS if spared else None):
                said = await self._readers.acquire(question, release or _nothing)
        except (TimeoutError, OverloadedError, StoreAnswerError, StoreError) as error:
            told = isinstance(error, StoreAnswerError | StoreError) and error.code != StoreError.default_code
            if not isinstance(error, OverloadedError):
                self.health.note_read(told)
            if told or not spared:
                raise
            return None
        self.health.note_read(True)
        return said

    def _grip_known(
        self, fields: Mapping[str, str], known: Mapping[str, PromptVersion], fingerprint: str
    ) -> Grip:
        """Hold versions that were resolved before. This needs no thread: holds are counts in memory."""
        return self._grip(fields, known, "", fingerprint)

    def _grip(
        self,
        fields: Mapping[str, str],
        known: Mapping[str, PromptVersion],
        tenant: str,
        fingerprint: str,
    ) -> Grip:
        """Hold all versions or none. References that are not known yet are resolved first, on a reader
        thread."""
        grip = Grip({}, ExitStack())
        try:
            for reference, field in fields.items():
                version = known.get(reference) or self._resolve(reference, tenant, field)
                check_base(version, fingerprint, field)
                try:
                    grip.holds.enter_context(self.store.hold(version, known=reference in known))
                except StoreError as error:
                    raise StoreAnswerError(error, field) from None
                grip.versions[reference] = version
        except BaseException:
            grip.close()
            raise
        return grip

    def _resolve(
        self,
        reference: str,
        tenant: str,
        field: str,
        patterns: Sequence[str] | None = None,
        right: Right = "infer",
    ) -> PromptVersion:
        try:
            parsed = _parsed(reference, tenant, field, patterns, "task")
            return self.store.resolve(parsed, tenant=tenant, field=field, right=right)
        except StoreError as error:
            raise StoreAnswerError(error, field) from None

    def _no_task_but_pack(self, reference: Reference, tenant: str, field: str) -> tuple[PackVersion, ...]:
        """The version of the pack; nothing if it is a task's name, or nobody's."""
        try:
            self.store.resolve(reference, tenant=tenant, field=field)
            return ()
        except StoreError as error:
            if error.code != "unknown_task":
                return ()  # there is a task of that name: who asks for it is told what is wrong
        try:
            return (self.store.resolve_pack(reference, tenant=tenant, field=field),)
        except StoreError as error:
            if error.code == "unknown_pack":
                return ()
            raise StoreAnswerError(error, field) from None

    def _resolve_pack(
        self, reference: str, tenant: str, field: str, patterns: Sequence[str] | None
    ) -> PackVersion:
        try:
            parsed = _parsed(reference, tenant, field, patterns, "pack")
            return self.store.resolve_pack(parsed, tenant=tenant, field=field)
        except StoreError as error:
            raise StoreAnswerError(error, field) from None

    def _resolve_ensemble(self, reference: str, tenant: str, field: str) -> EnsembleVersion:
        try:
            parsed = _parsed(reference, tenant, field, None, "ensemble")
            return self.store.resolve_ensemble(parsed, tenant=tenant, field=field)
        except StoreError as error:
            raise StoreAnswerError(error, field) from None


def _found(names: Iterable[str], find: Callable[[str], T | None]) -> dict[str, T]:
    """The results that are not None, by name."""
    return {name: found for name in names if (found := find(name)) is not None}


def _nothing(_: object) -> None:
    """Does nothing: there is nothing to release."""


def check_base(version: PromptVersion, fingerprint: str, field: str) -> None:
    """Refuse a version that was tuned on another base model. A version that names no base is accepted."""
    base = version.manifest.base_fingerprint
    if base is not None and base != fingerprint:
        raise ModelMismatchError(
            f"The version belongs to the base model {base[:12]}, this server runs {fingerprint[:12]}: "
            "use a version made for this model.",
            field=field,
        )


def _parsed(
    reference: str,
    tenant: str,
    field: str,
    patterns: Sequence[str] | None,
    kind: GrantKind,
) -> Reference:
    """A reference. What the caller may not name answers as what is not there.

    Raises StoreAnswerError with `field`.
    """
    try:
        parsed = parse_reference(reference, tenant=tenant, field=field)
        if not matches_any(patterns, parsed.task, owner=parsed.tenant, tenant=tenant):
            raise unknown(kind, parsed.tenant, parsed.task, field=field)
    except StoreError as error:
        raise StoreAnswerError(error, field) from None
    return parsed
