"""A server on the base that ships, in a folder of its own, and the commands that a user gives it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from tether import tethered

CHORUS = Path(sys.executable).parent / "chorus"


@dataclass(frozen=True)
class Commands:
    """`chorus` against one server.

    Attributes:
        url: of the server.
        folder: where relative paths in commands begin.
    """

    url: str
    folder: Path

    def run(self, *words: object) -> str:
        """What one command prints; it and its progress are shown.

        Raises:
            CalledProcessError: the command failed.
        """
        said = [str(word) for word in words]
        print("$ chorus", *said, flush=True)
        environment = os.environ | {"CHORUS_URL": self.url}
        command = tethered([CHORUS, *said])
        done = subprocess.run(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    def told(self, *words: object) -> str:
        """The same, and what it prints is shown too."""
        text = self.run(*words)
        print(text, flush=True)
        return text

    def evaluated(self, *words: object) -> dict[str, Any]:
        """The result of an evaluation, with its `job`, and its predictions row by row."""
        kept = self.folder / "predictions.jsonl"
        last = self.run("evaluate", *words, "--predictions", kept.name, "--json").splitlines()[-1]
        job = json.loads(last)["job"]
        rows = [json.loads(line) for line in kept.read_text().splitlines()]
        return {**job["result"], "job": job["id"], "predictions": rows}


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[Commands]:
    """A server whose data is in `folder`; a job that an earlier one left goes on by itself.

    Args:
        settings: others of the server, as in `CHORUS_MODEL="FOLDER"`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = {"CHORUS_DATA_DIR": str(folder / "data"), "CHORUS_HTTP_PORT": "0", "CHORUS_LOG_LEVEL": "warning"}
    server = subprocess.Popen(
        tethered([CHORUS, "serve"]),
        env=os.environ | own | settings,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = server.stderr
        assert lines is not None
        url = next(found[1] for line in lines if (found := re.search(r"ready at (http://\S+)", line)))
        threading.Thread(target=lambda: [sys.stderr.write(line) for line in lines], daemon=True).start()
        yield Commands(url, folder)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=120)
