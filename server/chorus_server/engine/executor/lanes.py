"""Which programs may run at the same time on one CPU. A lane is a thread that only starts programs.

On a CPU, JAX runs programs that one thread starts one after another, whatever they read; programs that
different threads start wait only for their arguments. Much of a decode step runs on one core, so a prefill
step beside it uses the others. On other platforms, and on several devices, every lane is the caller's thread.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any

import jax

from chorus_server.engine.executor.compiling import CompiledPrograms
from chorus_server.engine.executor.places import Places
from chorus_server.engine.executor.programs import MODES, admit_name, decode_name
from chorus_server.engine.plans import Ladder

ENCODING = "encoding"
"""The lane of the prompt table and of the programs that read it. A block's lane is its index."""

Work = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class Lanes:
    """Starts each program on the lane that it is given. Used from one thread.

    Args:
        lanes: their names.
        apart: whether each lane has its own thread; if not, all are the caller's.
    """

    def __init__(self, lanes: Iterable[Hashable], apart: bool) -> None:
        self._queues: Mapping[Hashable, SimpleQueue[Work | None]] = (
            {lane: SimpleQueue() for lane in lanes} if apart else {}
        )
        for lane, queue in self._queues.items():
            # Daemon threads: a program that hangs must not keep the process from ending.
            Thread(target=_serve, args=(queue,), name=f"chorus-lane-{lane}", daemon=True).start()
        weakref.finalize(self, _end, list(self._queues.values()))

    def start(self, lane: Hashable, program: Callable[..., Any], *arguments: Any) -> Any:
        """Return the program's results at once; their arrays are ready when it has run.

        Raises:
            whatever starting the program raises.
        """
        if not self._queues:
            return program(*arguments)
        started: Future[Any] = Future()
        self._queues[lane].put((started, program, arguments))
        return started.result()


def run_apart(places: Places) -> bool:
    """Whether lanes are threads here: they are on a single CPU device."""
    return places.mesh is None and jax.default_backend() == "cpu"


def temporaries_at_once(compiled: CompiledPrograms, ladder: Ladder, apart: bool) -> int:
    """XLA's scratch memory in bytes if every lane runs its program that needs the most."""
    needed = compiled.temporary_bytes
    if not apart:
        return max(needed.values(), default=0)
    of_blocks = [
        [decode_name(shape, mode) for mode in MODES] + [admit_name(shape)] for shape in ladder.blocks
    ]
    theirs = {name for names in of_blocks for name in names}
    encoding = max((size for name, size in needed.items() if name not in theirs), default=0)
    return encoding + sum(max(needed[name] for name in names) for names in of_blocks)


def _serve(queue: SimpleQueue[Work | None]) -> None:
    while (work := queue.get()) is not None:
        started, program, arguments = work
        try:
            started.set_result(program(*arguments))
        except BaseException as error:  # any kind of error belongs to the caller
            started.set_exception(error)
        # Keep no reference to a step until the next one comes.
        del work, started, program, arguments


def _end(queues: list[SimpleQueue[Work | None]]) -> None:
    for queue in queues:
        queue.put(None)
