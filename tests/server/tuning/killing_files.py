"""An operating system's files that end the process in the middle of a write."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from prompts_store.blobs.files import Files


def kill() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


class KillingFiles(Files):
    """Dies before the k-th sync or rename."""

    def __init__(self, k: int) -> None:
        self.left = k

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            kill()

    def sync(self, descriptor: int) -> None:
        self._count()
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)
