"""Servers as processes of their own, on one database; only the device of each is in memory."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.places import IMPORTS, python_module
from tether import tethered


@contextmanager
def serving(folder: Path, vocabulary: Path, *how: str, **settings: Any) -> Iterator[str]:
    """The URL of a process; see `replica_child`."""
    command = [*tethered(python_module("tests.server.api.replica_child")), str(folder), str(vocabulary)]
    command += [json.dumps(settings, default=str), *how]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=os.environ | IMPORTS, **pipes) as child:  # type: ignore[call-overload]
        assert child.stdout is not None and child.stdin is not None
        yield child.stdout.readline().strip()
        child.stdin.close()
        assert child.wait(300) == 0
