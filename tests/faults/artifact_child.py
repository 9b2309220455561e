"""A process of its own that reads files and tells what that cost and touched; started by the artifact tests.

    python artifact_child.py ours|naive FOLDER

Prints one JSON object: `outcomes` (file name to reason, or "accepted", or another exception's name),
`grown_bytes` (how far the peak of resident memory rose above where it stood before the first file), `slowest`
(file name and seconds of processor time, so that a busy machine does not count against it; best of three),
and `events` (what Python's audit hooks saw: unpickling, running code, writing, connecting).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from prompts_store.artifacts import read_artifact
from prompts_store.errors import ArtifactError
from tests.faults.artifact_builders import LIMITS, npy_file

SUSPICIOUS = (
    "pickle.find_class",
    "exec",
    "compile",
    "import",
    "subprocess.Popen",
    "os.system",
    "socket.connect",
)


def naive(path: Path) -> object:
    """How a careless server reads an upload: the control."""
    if path.read_bytes()[:1] == b"\x93":
        return np.load(path, allow_pickle=True)
    return safetensors.numpy.load_file(path)


def ours(path: Path) -> object:
    return read_artifact(path, limits=LIMITS)


def outcome(read: Callable[[Path], object], path: Path) -> str:
    try:
        read(path)
    except ArtifactError as error:
        return error.code
    except Exception as error:
        return type(error).__name__
    return "accepted"


def status_bytes(field: str) -> int:
    """A line of this process's status: VmRSS now, VmHWM at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


class Watch:
    """Collects audit events while it is on; a hook can never be taken out again."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in SUSPICIOUS:
            self.seen.append(f"{event} {str(arguments)[:80]}")
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            self.seen.append(f"write {arguments[0]}")


def main() -> None:
    read = {"ours": ours, "naive": naive}[sys.argv[1]]
    paths = sorted(Path(sys.argv[2]).iterdir())
    warm_up = Path("warm_up.npy")
    warm_up.write_bytes(npy_file())
    outcome(read, warm_up)
    warm_up.unlink()
    watch = Watch()
    before = status_bytes("VmRSS")
    outcomes, slowest = {}, ("", 0.0)
    for path in paths:
        times = []
        for _ in range(3 if read is ours else 1):
            watch.on = True
            start = time.process_time()
            outcomes[path.name] = outcome(read, path)
            times.append(time.process_time() - start)
            watch.on = False
        slowest = max(slowest, (path.name, min(times)), key=lambda pair: pair[1])
    report = {
        "outcomes": outcomes,
        "grown_bytes": status_bytes("VmHWM") - before,
        "slowest": slowest,
        "events": sorted(set(watch.seen)),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
