"""Device work from the runner's thread to whoever owns the device: one bounded slice at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Piece = Callable[[], bool]
"""Does one slice of device work; True when nothing is left of it."""


class DeviceWork:
    """A `BackgroundWork`: one piece of work at a time, given slices by the engine (or a `SliceThread`).

    Args:
        because: entered around each slice, so that what compiles inside has its cause.
        observe: told the seconds of each slice, on the device's thread.
    """

    def __init__(
        self,
        because: Callable[[], AbstractContextManager[None]] = nullcontext,
        observe: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._because = because
        self._observe = observe
        self._changed = threading.Condition()
        self._piece: Piece | None = None
        self._busy = False
        self._error: BaseException | None = None
        self._wake: Callable[[], None] = lambda: None

    def connect(self, wake: Callable[[], None]) -> None:
        """Say how to call whoever gives slices."""
        self._wake = wake

    # For the device's owner.

    def wants_slice(self) -> bool:
        """Whether a piece is there and unfinished."""
        return self._piece is not None

    def run_slice(self) -> None:
        """One slice. An error of the piece ends it and is raised in `wait`."""
        with self._changed:
            piece, self._busy = self._piece, self._piece is not None
        if piece is None:
            return
        started, done, error = time.monotonic(), True, None
        try:
            with self._because():
                done = piece()
        except Exception as caught:
            error = caught
        finally:
            self._observe(time.monotonic() - started)
            with self._changed:
                self._busy = False
                if done and self._piece is piece:
                    self._piece, self._error = None, error
                self._changed.notify_all()

    # For the runner.

    def start(self, piece: Piece) -> None:
        """Have this piece done."""
        with self._changed:
            if self._piece is not None or self._busy:
                raise RuntimeError("a piece of work is under way already")
            self._piece, self._error = piece, None
        self._wake()

    def wait(self, seconds: float) -> bool:
        """Whether the piece ended within this time. Raises what the piece raised."""
        with self._changed:
            ended = self._changed.wait_for(lambda: self._piece is None, seconds)
            error, self._error = self._error, None
        if error is not None:
            raise error
        return ended

    def stop(self, seconds: float) -> bool:
        """Give up the piece; True once no slice of it runs. False: one hangs, and its state is not to be
        read."""
        with self._changed:
            self._piece = None
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._busy, seconds)


class SliceThread:
    """Gives a `DeviceWork` the device all the time: for a process that serves no requests."""

    def __init__(self, work: DeviceWork) -> None:
        self._work = work
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="chorus-tuning-device", daemon=True)
        work.connect(self._notify)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End after the slice under way."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._work.wants_slice())
                if self._stopping:
                    return
            self._work.run_slice()
