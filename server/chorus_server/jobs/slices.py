"""Hands device work from a job's thread to the device's owner: one bounded slice at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Piece = Callable[[], bool]
"""Does one slice of the work; returns True when the work is done."""


class DeviceWork:
    """A `BackgroundWork` that holds one piece of work at a time. The engine, or a `SliceThread`, runs it.

    Args:
        because: entered around each slice, so that a compile inside it is counted under its cause.
        observe: called on the device's thread with the seconds of each slice.
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
        """Set what `start` calls to wake the device's owner."""
        self._wake = wake

    # For the device's owner.

    def wants_slice(self) -> bool:
        """Whether there is work left."""
        return self._piece is not None

    def run_slice(self) -> None:
        """Run one slice. If the piece raises, it ends, and `wait` raises the error."""
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
            error = None  # its traceback has this frame

    # For the job's thread.

    def start(self, piece: Piece) -> None:
        """Hand in a piece of work."""
        with self._changed:
            if self._piece is not None or self._busy:
                raise RuntimeError("there is unfinished work already")
            self._piece, self._error = piece, None
        self._wake()

    def wait(self, seconds: float) -> bool:
        """Wait at most so many seconds; whether the piece has ended. Raises what the piece raised."""
        with self._changed:
            ended = self._changed.wait_for(lambda: self._piece is None, seconds)
            error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                error = None  # its traceback has this frame, and the piece: no cycle keeps what the job held
        return ended

    def stop(self, seconds: float) -> bool:
        """Drop the piece, and wait for the slice that may be running. False if that one still runs after so
        many seconds: its state must not be read then."""
        with self._changed:
            self._piece = None
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._busy, seconds)


class SliceThread:
    """Runs the slices of a `DeviceWork` back to back, in a process that serves no requests."""

    def __init__(self, work: DeviceWork) -> None:
        self._work = work
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="chorus-tuning-device", daemon=True)
        work.connect(self._notify)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End the thread after the slice that is running."""
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
