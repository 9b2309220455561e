"""`chorus serve` as a process of its own, as an operator runs it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2

from tether import tethered

CHORUS = Path(sys.executable).parent / "chorus"
TINY = {
    "shapes": "input_lengths=48 batch_rows=1,4 blocks=48x8x4 score_buckets=2x16",
    "prompt_rows": 64,
    "layout": "unrolled",
}
"""A ladder that compiles in seconds."""
SAME_NUMBERS = {"matrix_dtype": "f32"}
"""Whatever the processor."""
_READY = re.compile(r"ready at (http://\S+)")
_LISTENING = re.compile(r"listening on (http://\S+)")


def free_port() -> int:
    """A port of this machine that nobody listens on now. It is none of those that clients' sockets and
    servers at port 0 are given, nor one of another process of the same run of tests, so that nobody takes it
    before it is used. So are the ten after it."""
    first = 12_000 + 5_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 4)
    while True:
        port = first + secrets.randbelow(4_990)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Served:
    """One server process; ended with SIGTERM when the block ends, and by whatever ends this one.

    Args:
        command: in place of `chorus serve`.
        stderr: a descriptor in place of the pipe that `lines` are read from; nothing of the log is seen then.
        options: settings by name; written as environment variables.
    """

    def __init__(
        self, data_dir: Path, *, command: Sequence[str] = (), stderr: int = subprocess.PIPE, **options: Any
    ) -> None:
        port = 0 if stderr == subprocess.PIPE else free_port()
        given = {"http_port": port, "data_dir": data_dir, "log_level": "warning", **SAME_NUMBERS} | options
        env = {name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")}
        env |= {f"CHORUS_{name.upper()}": str(value) for name, value in given.items()}
        env |= {"JAX_PLATFORMS": "cpu"}
        self.data_dir = data_dir
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            tethered(command or [CHORUS, "serve"]),
            env=env,
            stderr=stderr,
            text=True,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=300)

    def _read(self) -> None:
        for line in self.process.stderr or ():
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, pattern: re.Pattern[str], seconds: float = 1200) -> str:
        """The first group of the first line that matches; fails when the process ends before."""

        def found() -> str | None:
            matches = (pattern.search(line) for line in self.lines)
            return next((match.group(1) for match in matches if match), None)

        with self._changed:
            done = lambda: found() is not None or not self._reader.is_alive()  # noqa: E731
            self._changed.wait_for(done, seconds)
        text = found()
        assert text is not None, "\n".join(self.lines)
        return text

    def wait_listening(self) -> str:
        """The URL as soon as the HTTP server is up; programs are not compiled yet."""
        return self.wait_for(_LISTENING)

    def wait_ready(self) -> None:
        """Until requests are taken."""
        if self.process.stderr is not None:
            self.http.base_url = httpx2.URL(self.wait_for(_READY))
            return
        pause = threading.Event()
        while not self._is_ready():
            assert self.process.poll() is None
            pause.wait(0.05)

    def _is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def post(self, path: str, body: Any) -> Any:
        """The JSON of a successful POST."""
        answer = self.http.post(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series with these labels."""
        total = 0.0
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith((name + " ", name + "{")) and all(
                f'{key}="{value}"' in line for key, value in labels.items()
            ):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def stop(self, sig: signal.Signals = signal.SIGTERM, seconds: float = 1200) -> int:
        """The exit code after a signal."""
        if sig is signal.SIGHUP:
            assert signal.getsignal(sig) is not signal.SIG_IGN, "these tests cannot run under nohup"
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(300)
            if self.process.stderr is not None:
                self.process.stderr.close()
            self.http.close()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
