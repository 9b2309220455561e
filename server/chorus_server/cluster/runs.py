"""One run at a time writes into a target.

Runs have numbers: 1, 2, ... Each is an object below `_runs/` that only its own run writes. The run of the
greatest number has the target, and whoever makes the next number takes it. If two try at once, the bucket
lets one of them, because it makes an object only where none is.

A run writes its object again every few seconds. Whoever finds one that has not ended watches it: if it is
written again, the target is taken; if it is not for a minute, its process is gone. So no clock needs to be
right. A process that stood still for so long finds a greater number, and stops.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from chorus_server.errors import ConflictError, InvalidInputError
from chorus_server.jobs.runner import this_process
from prompts_store.blobs.bucket import Bucket
from prompts_store.errors import StoreError

LOG = logging.getLogger("chorus.cluster")

BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
"""A run that writes nothing for so long has ended with its process."""

_LOOK_SECONDS = 5.0
_FOLDER = "_runs"


class TargetRun:
    """A run that has the target, until another one takes it.

    Attributes:
        number: greater than that of every run before.
    """

    def __init__(self, target: Bucket, number: int, told: Mapping[str, str]) -> None:
        self.number = number
        self._target = target
        self._told = told
        self._beats = 0
        self._taken = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="chorus-run", daemon=True)

    def start(self) -> None:
        """Show others from now on that it goes on."""
        self._thread.start()

    def check(self) -> None:
        """Raise ConflictError if another run has the target now."""
        if self._taken:
            raise _taken()

    def end(self) -> None:
        """Give the target to whoever comes next."""
        self._ending.set()
        self._thread.join()
        if not self._taken:
            with suppress(StoreError):  # it was logged; the next run waits until this one is silent
                self._target.put(_key(self.number), _content(self._told, self._beats, ended=True))

    def beat(self) -> None:
        """Show that it goes on, unless another run has the target. Raises StoreError."""
        self._taken = self._taken or _newest(self._target) != self.number
        if not self._taken:
            self._beats += 1
            self._target.put(_key(self.number), _content(self._told, self._beats))

    def _follow(self) -> None:
        while not self._taken and not self._ending.wait(BEAT_SECONDS):
            with suppress(StoreError):  # it was logged
                self.beat()


@contextmanager
def only_run(target: Bucket, pause: Callable[[float], object] = time.sleep) -> Iterator[TargetRun]:
    """Have the target until the end of the block.

    Args:
        pause: waits for so many seconds.

    Raises:
        ConflictError: another run has it, and goes on.
        InvalidInputError: the bucket would let two runs have it at once.
        StoreError: the bucket does not answer.
    """
    run = _take(target, pause)
    run.start()
    try:
        yield run
    finally:
        run.end()


def check_newest(target: Bucket, number: int) -> None:
    """Raise ConflictError if a run after this one has the target."""
    if _newest(target) > number:
        raise _taken()


def _take(target: Bucket, pause: Callable[[float], object]) -> TargetRun:
    began = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    told = {"by": this_process(), "began": began, "run": secrets.token_hex(6)}
    while True:
        before = _newest(target)
        _wait_until_over(target, before, pause)
        number = before + 1
        if not target.create(_key(number), _content(told, 0)):
            continue
        if target.create(_key(number), b"another"):
            target.remove(_key(number))
            raise InvalidInputError(
                "It writes over an object that was to be made only where none is, so two runs could have it "
                "at once: choose a bucket that knows If-None-Match.",
                field="target",
            )
        if _newest(target) == number:  # a later run may have removed what was of this number
            for each in range(before, 0, -1):
                if target.look(_key(each)) is None:
                    break
                target.remove(_key(each))
            return TargetRun(target, number, told)
        target.remove(_key(number))


def _wait_until_over(target: Bucket, number: int, pause: Callable[[float], object]) -> None:
    """Return once a run has ended, or has been silent for long enough. Raises ConflictError if it goes on."""
    seen, left = target.get(_key(number)), SILENT_SECONDS
    while seen is not None and not (told := json.loads(seen))["ended"]:
        if left <= 0:
            LOG.warning("the run by %s, begun at %s, has not ended, and is gone", told["by"], told["began"])
            return
        if left == SILENT_SECONDS:
            LOG.info("the run by %s, begun at %s, has not ended: watching it", told["by"], told["began"])
        pause(_LOOK_SECONDS)
        left -= _LOOK_SECONDS
        now = target.get(_key(number))
        if now is not None and now != seen and not json.loads(now)["ended"]:
            raise ConflictError(
                f"The run by {told['by']}, begun at {told['began']}, writes into it: wait for its end, or "
                f"end it.",
                field="target",
            )
        seen = now


def _newest(target: Bucket) -> int:
    """The greatest number; 0 before the first run."""
    numbers = (path.rpartition("/")[2].removesuffix(".json") for path, _ in target.entries(_FOLDER))
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _key(number: int) -> str:
    return f"{_FOLDER}/{number}.json"


def _content(told: Mapping[str, str], beats: int, *, ended: bool = False) -> bytes:
    return json.dumps({**told, "beats": beats, "ended": ended}).encode()


def _taken() -> ConflictError:
    return ConflictError(
        "Another run writes into the target now, since this one was silent: nothing more is written.",
        field="target",
    )
