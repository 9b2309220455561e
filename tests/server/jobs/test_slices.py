"""Work of a job on the device, one slice at a time."""

from __future__ import annotations

import gc
import weakref

import pytest

from chorus_server.jobs.slices import DeviceWork


class Held:
    """What a job's work holds, such as compiled programs."""


def test_what_failed_work_held_is_freed_without_the_collector() -> None:
    """The collector hardly ever looks at what is no longer new, and a program takes tens of megabytes."""

    def failing() -> weakref.ref[Held]:
        held, work = Held(), DeviceWork()

        def piece() -> bool:
            raise MemoryError(repr(held))

        work.start(piece)
        work.run_slice()
        with pytest.raises(MemoryError):
            work.wait(0)
        return weakref.ref(held)

    gc.collect()
    gc.disable()
    try:
        held = failing()
        assert held() is None
    finally:
        gc.enable()
