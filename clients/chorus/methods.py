"""Turns a route's description into a method. It is written once, and typed for the blocking client and for
the awaiting one.

`generate = Method(generate)` in a class makes a method with the arguments and the docstring of the
description. In a `SyncOwner` it returns the result, in an `AsyncOwner` an awaitable of the result.
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


class Method(_Described, Generic[P, T]):
    """A method that blocks if its owner is a `SyncOwner`, and is awaited if it is an `AsyncOwner`."""

    def __init__(self, describe: Callable[P, Plan[T]]) -> None:
        super().__init__(describe)
        self.describe = describe

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...

    @overload
    def __get__(self, owner: SyncOwner, kind: type) -> Callable[P, T]: ...

    @overload
    def __get__(self, owner: AsyncOwner, kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, owner: SyncOwner | AsyncOwner | None, kind: type) -> Any:
        if owner is None:
            return self
        return functools.update_wrapper(self._bound(owner), self.describe)

    def _bound(self, owner: SyncOwner | AsyncOwner) -> Callable[P, Any]:
        if isinstance(owner, AsyncOwner):
            waiting = owner._transport

            async def awaited(*args: P.args, **kwargs: P.kwargs) -> T:
                return await waiting.run(self.describe(*args, **kwargs))

            return awaited
        blocking = owner._transport

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return blocking.run(self.describe(*args, **kwargs))

        return call


class StreamMethod(_Described, Generic[P]):
    """A method that returns an `EventStream` or an `AsyncEventStream`. The method itself is not awaited."""

    def __init__(self, describe: Callable[P, Request]) -> None:
        super().__init__(describe)
        self.describe = describe

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...

    @overload
    def __get__(self, owner: SyncOwner, kind: type) -> Callable[P, EventStream]: ...

    @overload
    def __get__(self, owner: AsyncOwner, kind: type) -> Callable[P, AsyncEventStream]: ...

    def __get__(self, owner: SyncOwner | AsyncOwner | None, kind: type) -> Any:
        if owner is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> EventStream | AsyncEventStream:
            request = self.describe(*args, **kwargs)
            if isinstance(owner, AsyncOwner):
                return AsyncEventStream(owner._transport.events(request))
            return EventStream(owner._transport.events(request))

        return functools.update_wrapper(call, self.describe)
