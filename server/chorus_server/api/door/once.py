"""Creation that may be asked for again: a route that takes `Once` makes one thing of one request.

A client that got no answer sends the request again, and may not know that it was carried out. If it has an
`Idempotency-Key`, the store remembers what became of it, and the second one is answered with that, as it is
by then. No answer is kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request
from fastapi.dependencies.models import Dependant

from chorus_server.api.http.context import context_of
from chorus_server.api.services import services_of
from chorus_server.errors import NotFoundError
from prompts_store import errors
from prompts_store.records import Creation
from prompts_store.tenants.creations import MadeBefore

T = TypeVar("T")

REPLAYED = "Idempotent-Replayed"
"""Header of an answer that tells of something which was made before."""

_KEY_CHARACTERS = 255

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=_KEY_CHARACTERS,
        description="Of your own choice, another one for each request: the same request with the same key "
        "makes one thing, within 24 hours.",
    ),
]


class MakesOnce:
    """The request of a route that makes something, which the handler's part is wrapped in: see `made`.

    Args:
        creation: None if it makes another thing each time.
        whole: whether the creation says all of it. If not, the handler adds the rest, or the store does with
            a file's bytes.
    """

    def __init__(self, request: Request, tenant: str, creation: Creation | None, whole: bool) -> None:
        self._request = request
        self._tenant = tenant
        self._whole = whole
        self._announce(creation)

    @property
    def keyed(self) -> bool:
        """Whether the request has an `Idempotency-Key`."""
        return self._creation is not None and self._creation.key is not None

    def including(self, *said: str, whole: bool = False) -> None:
        """More is known of what the request says.

        Args:
            whole: whether that is all. The bytes of a data file are added by the store, at their end.
        """
        self._whole = whole
        if self._creation is not None:
            self._announce(self._creation.including(*said))

    async def known(self) -> str | None:
        """What the request has made, if its key came before. Without all that it says, that is not compared.

        Raises:
            InvalidError: of the store, `idempotency_key_reused`.
        """
        if self._creation is None or not self.keyed:
            return None
        library = services_of(self._request).library
        return await library.read(library.store.made_before, self._tenant, self._creation, whole=self._whole)

    async def made(self, make: Callable[[], Awaitable[T]], find: Callable[[str], Awaitable[T]]) -> T:
        """What `make` makes; or if the same request made it before, what `find` finds by its id.

        Args:
            make: makes one thing, by `acting_store`.

        Raises:
            InvalidError: of the store, `idempotency_key_reused`.
            NotFoundError: it was made, and is there no longer.
        """
        try:
            before = await self.known() if self._whole else None
            if before is None:
                return await make()
        except MadeBefore as found:
            before = found.made
        context_of(self._request).headers[REPLAYED] = "true"
        try:
            return await find(before)
        except errors.NotFoundError as error:
            raise NotFoundError(
                "This request came before, and what it made is there no longer: to make another, send a new "
                "Idempotency-Key.",
                field="Idempotency-Key",
                code=error.code,
            ) from None

    def _announce(self, creation: Creation | None) -> None:
        self._creation = context_of(self._request).creation = creation


class MayRepeat:
    """A dependency that gives a route its `MakesOnce`.

    Args:
        unkeyed: whether a request without a key makes nothing that the same caller asked for within the last
            minute. For clients that send requests again, and send no keys.
    """

    def __init__(self, *, unkeyed: bool) -> None:
        self._unkeyed = unkeyed

    async def __call__(self, request: Request, key: IdempotencyKey = None) -> MakesOnce:
        caller = context_of(request).principal
        if caller is None:
            raise RuntimeError("nobody makes anything before its key was checked")
        digest = getattr(request, "digest", None)
        said = (request.url.path, request.url.query, *([digest] if digest is not None else ()))
        announced = key is not None or self._unkeyed
        creation = Creation(key, caller.key or caller.name, said) if announced else None
        return MakesOnce(request, caller.tenant, creation, whole=digest is not None)


Once = Annotated[MakesOnce, Depends(MayRepeat(unkeyed=False))]
OnceAMinute = Annotated[MakesOnce, Depends(MayRepeat(unkeyed=True))]


def makes_once(dependant: Dependant) -> bool:
    """Whether a route takes `Once` or `OnceAMinute`."""
    return any(isinstance(inner.call, MayRepeat) for inner in dependant.dependencies)
