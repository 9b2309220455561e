"""A handle: events in order on any loop or thread, one outcome, no reader that blocks the engine."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from chorus_server.engine.handle import RequestHandle
from chorus_server.engine.requests import FailedEvent, FinishedEvent, Timings, TokensEvent
from chorus_server.errors import ChorusError, DeadlineExceededError, InternalError

DONE = FinishedEvent((), 3, Timings(0, 0, 0, None))


def make() -> RequestHandle:
    return RequestHandle("r1", lambda error: None)


def settle(handle: RequestHandle, event: FinishedEvent | FailedEvent = DONE) -> bool:
    return handle.settle(event, lambda: None)


def token(value: int) -> TokensEvent:
    return TokensEvent(0, (value,), (-1.0,))


def test_events_that_came_before_the_reader_are_kept() -> None:
    handle = make()
    handle.push(token(1))
    handle.push(token(2))
    settle(handle)

    async def read() -> list[object]:
        return [event async for event in handle]

    assert asyncio.run(read()) == [token(1), token(2), DONE]


def test_events_cross_from_a_thread_to_the_loop() -> None:
    handle, reading = make(), threading.Event()

    def produce() -> None:
        assert reading.wait(300)
        for value in range(50):
            handle.push(token(value))
        settle(handle)

    async def read() -> list[object]:
        loop = asyncio.get_running_loop()
        loop.call_soon(reading.set)
        return [event async for event in handle]

    thread = threading.Thread(target=produce)
    thread.start()
    assert asyncio.run(read()) == [*(token(value) for value in range(50)), DONE]
    thread.join()


def test_only_the_first_outcome_counts_and_it_is_recorded_before_it_is_told() -> None:
    handle = make()
    order: list[str] = []
    assert handle.settle(DONE, lambda: order.append("recorded" if handle.outcome is None else "too late"))
    assert not handle.settle(FailedEvent(InternalError("late")), lambda: order.append("again"))
    assert order == ["recorded"] and handle.outcome is DONE
    handle.push(token(1))

    async def read() -> list[object]:
        return [event async for event in handle]

    assert asyncio.run(read()) == [DONE]


def test_several_readers_of_the_result() -> None:
    handle = make()

    async def run() -> list[object]:
        readers = [asyncio.create_task(handle.result()) for _ in range(3)]
        await asyncio.sleep(0)
        threading.Thread(target=settle, args=(handle,)).start()
        return list(await asyncio.gather(*readers))

    assert asyncio.run(run()) == [DONE] * 3


def test_a_failure_is_raised() -> None:
    handle = make()
    settle(handle, FailedEvent(DeadlineExceededError("too late")))
    with pytest.raises(DeadlineExceededError, match="too late"):
        asyncio.run(handle.result())
    with pytest.raises(DeadlineExceededError):
        handle.wait(0)


def test_a_reader_that_was_cancelled_or_whose_loop_closed_harms_nobody() -> None:
    handle = make()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(handle.result(), 0.001)

    asyncio.run(give_up())
    loop = asyncio.new_event_loop()
    task = loop.create_task(handle.result())
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    assert settle(handle)
    assert handle.wait(0) is DONE


def test_cancel_names_the_reason() -> None:
    errors: list[ChorusError] = []
    handle = RequestHandle("r1", errors.append)
    handle.cancel("the client disconnected")
    assert errors[0].code == "cancelled" and "disconnected" in errors[0].message


class Holder:
    """Stands for a ticket, which holds the handle that leads back to it."""

    def __init__(self) -> None:
        self.handle = RequestHandle("r1", lambda error: self.give_up())

    def give_up(self) -> None:
        """As the engine's way to give a ticket up."""


@pytest.mark.parametrize("settled", [True, False])
def test_what_is_settled_is_freed_without_the_collector(settled: bool) -> None:
    """Thousands a second would wait for it and be freed at once, while every thread stands still. The
    control has no outcome yet."""
    gc.disable()
    try:
        holder = Holder()
        gone = weakref.ref(holder)
        if settled:
            settle(holder.handle)
        holder.handle.cancel()
        del holder
        assert (gone() is None) == settled
    finally:
        gc.enable()
