"""Run by test_usage_killed.py: records usage as fast as told, to be killed.

    python -m tests.server.tenancy.usage_child FOLDER SECONDS

Says `recorded N` after row N was recorded, and `saved N` when the first N rows are on the disk, in lines
written at once. SECONDS is the time between two saves; 0 saves never, as a recorder without a spool.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from chorus_server.engine.requests import Origin
from chorus_server.engine.work import Settled
from chorus_server.metrics import MetricsRegistry
from chorus_server.tenancy import usage
from chorus_server.tenancy.metrics import UsageMetrics
from chorus_server.tenancy.usage import UsageRecorder
from prompts_store.errors import StoreError
from prompts_store.usage.records import UsageRow


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # one write, so that a line is whole or not there


class Telling(UsageRecorder):
    """Says how many rows were recorded before a save that has ended."""

    recorded = 0
    never = False

    def save(self) -> None:
        before = self.recorded
        if not self.never:
            super().save()
            say(f"saved {before}")


def away(replica: str, rows: Sequence[UsageRow]) -> None:
    """The database does not answer."""
    raise StoreError("The database is away.")


def main(folder: Path, seconds: float) -> None:
    usage.SAVE_SECONDS = seconds or 0.01
    recorder = Telling(away, folder, UsageMetrics(MetricsRegistry()))
    recorder.never = seconds == 0
    recorder.start()
    while True:
        number = recorder.recorded + 1
        origin = Origin(f"r{number}", "acme", "acme/sst2", key="key-1", digest="d" * 64, call=f"req_{number}")
        recorder.record(Settled(origin, "answered", 7, 3, 10))
        recorder.recorded = number
        say(f"recorded {number}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
