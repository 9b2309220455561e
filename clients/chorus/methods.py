"""A route's description turned into a method: written once, typed for the blocking client and for the
awaiting one.

`generate = Sync(routes.generate)` in a class gives it a method with the description's arguments that returns
its result; `Async` one that returns an awaitable of it. Each keeps the description's docstring.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from chorus.streams import AsyncEventStream, EventStream
from chorus.transports import AsyncTransport, SyncTransport
from chorus.wire import Plan, Request

P = ParamSpec("P")
T = TypeVar("T")


class SyncOwner:
    """Has methods that block."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport


class AsyncOwner:
    """Has methods that are awaited."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport


class _Described:
    """Shows the description's name, arguments and docstring to `help` and editors."""

    def __init__(self, describe: Callable[..., Any]) -> None:
        self.__doc__ = describe.__doc__
        self.__wrapped__ = describe


class Sync(_Described, Generic[P, T]):
    """A blocking method."""

    def __init__(self, describe: Callable[P, Plan[T]]) -> None:
        super().__init__(describe)
        self.describe = describe

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...

    @overload
    def __get__(self, owner: SyncOwner, kind: type) -> Callable[P, T]: ...

    def __get__(self, owner: SyncOwner | None, kind: type) -> Self | Callable[P, T]:
        if owner is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return owner._transport.run(self.describe(*args, **kwargs))

        return functools.update_wrapper(call, self.describe)


class Async(_Described, Generic[P, T]):
    """A method that is awaited."""

    def __init__(self, describe: Callable[P, Plan[T]]) -> None:
        super().__init__(describe)
        self.describe = describe

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...

    @overload
    def __get__(self, owner: AsyncOwner, kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, owner: AsyncOwner | None, kind: type) -> Self | Callable[P, Coroutine[Any, Any, T]]:
        if owner is None:
            return self

        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return await owner._transport.run(self.describe(*args, **kwargs))

        return functools.update_wrapper(call, self.describe)


class SyncStream(_Described, Generic[P]):
    """A method that returns an `EventStream`."""

    def __init__(self, describe: Callable[P, Request]) -> None:
        super().__init__(describe)
        self.describe = describe

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...

    @overload
    def __get__(self, owner: SyncOwner, kind: type) -> Callable[P, EventStream]: ...

    def __get__(self, owner: SyncOwner | None, kind: type) -> Self | Callable[P, EventStream]:
        if owner is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> EventStream:
            return EventStream(owner._transport.events(self.describe(*args, **kwargs)))

        return functools.update_wrapper(call, self.describe)


class AsyncStream(_Described, Generic[P]):
    """A method that returns an `AsyncEventStream`; the method itself is not awaited."""

    def __init__(self, describe: Callable[P, Request]) -> None:
        super().__init__(describe)
        self.describe = describe

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...

    @overload
    def __get__(self, owner: AsyncOwner, kind: type) -> Callable[P, AsyncEventStream]: ...

    def __get__(self, owner: AsyncOwner | None, kind: type) -> Self | Callable[P, AsyncEventStream]:
        if owner is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> AsyncEventStream:
            return AsyncEventStream(owner._transport.events(self.describe(*args, **kwargs)))

        return functools.update_wrapper(call, self.describe)
