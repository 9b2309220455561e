"""A worker's loop: a command a line on standard input, a JSON answer a line on standard output.

A worker loads once and then waits, using no processor, while another contender has its turn.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Contender = Callable[[Path], dict[str, Any]]
"""Answers the work in a folder once and returns what it wants to say beside its seconds."""


def serve(contenders: dict[str, Contender]) -> None:
    """Commands: `{"contender": name, "folder": path}`. Answers: `{"seconds", "processor_seconds", ...}` or
    `{"error"}`. Processor time counts threads that spin too."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries print
    for line in sys.stdin:
        command = json.loads(line)
        try:
            started, processor = time.perf_counter(), time.process_time()
            said = contenders[command["contender"]](Path(command["folder"]))
            spent = time.process_time() - processor
            answer = {"seconds": time.perf_counter() - started, "processor_seconds": spent, **said}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
