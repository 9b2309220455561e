"""Turns a route's description into a method. It is written once, and typed for the blocking client and for
the awaiting one.

`generate = Sync(routes.generate)` in a class makes a method that takes the description's arguments and
returns its result. `Async` makes one that returns an awaitable. Both keep the description's docstring.
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
    """An object whose methods block."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport


class AsyncOwner:
    """An object whose methods are awaited."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport


class _Described:
    """Shows the description's name, arguments and docstring to `help` and to editors."""

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
    """A method that returns an `AsyncEventStream`. The method itself is not awaited."""

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
