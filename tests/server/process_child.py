"""Run by test_process.py: forks one serving process for each way to fail, and tells how each ended.

One line a way: its name and its exit code. The last is the control, which nobody ends: `alive`.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import chorus_server.process as process
from chorus_server.app import build_app
from chorus_server.settings import Settings
from tether import tie_to

Say = Callable[[str], None]


def fail(error: BaseException) -> Callable[..., NoReturn]:
    def failing(*_: Any, **__: Any) -> NoReturn:
        raise error

    return failing


def hang(*_: Any, **__: Any) -> None:
    threading.Event().wait()


def up(app: Any, say: Say, on_death: Any) -> str:
    """In place of a model: the server is ready, and then told to end."""
    app.services.lifecycle.ready()
    return "nothing was compiled"


def ends_when_ready(line: str) -> None:
    if line.startswith("ready at"):
        os.kill(os.getpid(), signal.SIGTERM)


def deaf(when: str) -> Say:
    def say(line: str) -> None:
        ends_when_ready(line)
        if when in line:
            raise BrokenPipeError("nobody reads this")

    return say


async def stuck(*_: Any, **__: Any) -> None:
    hang()


def way(name: str) -> Say:
    """Break what the name says; returns what is told how it goes."""
    process.bring_up = up
    if name == "nothing fails":
        return ends_when_ready
    if name.startswith("the load raises "):
        kinds = (SystemExit(0), MemoryError(), RuntimeError("no"))
        process.bring_up = fail(next(kind for kind in kinds if type(kind).__name__ in name))
    elif name == "the load hangs and the server fails":
        process.bring_up = hang
        process.EndingServer.main_loop = fail(RuntimeError("no"))  # type: ignore[method-assign]
    elif name in ("the load fails and the loop hangs", "the control"):
        process.bring_up = fail(RuntimeError("no"))
        process.EndingServer.shutdown = stuck  # type: ignore[method-assign]
        if name == "the control":
            process.Process._keep_time = lambda self: None  # type: ignore[method-assign]
    elif name == "nobody hears that it listens":
        return deaf("listening")
    elif name == "nobody hears that it loads":
        process.bring_up = lambda app, say, on_death: say("loading")
        return deaf("loading")
    elif name == "nobody hears that it drains":
        return deaf("draining")
    elif name == "the drain raises":
        process.answer_requests = fail(RuntimeError("no"))
    elif name == "the drain hangs":
        process.answer_requests = stuck
    elif name == "closing hangs":
        process.close_app = hang
    else:
        raise ValueError(name)
    return ends_when_ready


def serve(name: str, folder: Path) -> int:
    say = way(name)
    # Whoever ends by itself has time for it: a dozen do at once, perhaps on a busy machine.
    seconds = 0 if name == "the drain hangs" else 60
    settings = Settings(model="x", data_dir=folder, http_port=0, drain_seconds=seconds)
    return process.Process(build_app(settings), say).run()


def main(names: list[str]) -> None:
    launcher = os.getpid()
    with tempfile.TemporaryDirectory() as scratch:
        children: dict[int, str] = {}
        for number, name in enumerate(names):
            child = os.fork()
            if not child:
                tie_to(launcher)
                process.end_with(lambda name=name, number=number: serve(name, Path(scratch) / str(number)))
            children[child] = name
        while set(children.values()) != {"the control"}:
            child, status = os.wait()
            sys.stdout.write(f"{children.pop(child)}: {os.waitstatus_to_exitcode(status)}\n")
        (control,) = children
        alive = os.waitpid(control, os.WNOHANG) == (0, 0)
        os.kill(control, signal.SIGKILL)
        sys.stdout.write(f"the control: {'alive' if alive else 'ended'}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
