"""The curve of a run as JSON lines, and the lines that a person reads while it runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chorus_server.log import Say


class Curve:
    """Lines of `curve.jsonl`: `{"step", "split", "loss", "accuracy", ...}`, one for each interval and one for
    each measurement of the held-out slice."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def cut(self, step: int) -> None:
        """Drop the lines after `step`. A run that continues from a checkpoint writes them again."""
        kept = [line for line in self.lines() if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        temporary = self._path.with_suffix(".partial")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self._path)

    def add(self, **line: Any) -> None:
        """Append one line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def sync(self) -> None:
        """Make the written lines durable."""
        if self._path.exists():
            with self._path.open("rb") as file:
                os.fsync(file.fileno())

    def lines(self) -> list[dict[str, Any]]:
        """Every complete line so far."""
        if not self._path.exists():
            return []
        found = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                # Ours, and not strict JSON: the norm of a gradient may be infinite.
                found.append(json.loads(line))
            except ValueError:  # a killed process may leave half a line at the end
                break
        return found


class ProgressReport:
    """Lines for a person: how far the run is, how good, how fast, and how long it will take.

    Args:
        clock: gives monotonic seconds.
    """

    def __init__(self, say: Say, clock: Callable[[], float], steps: int) -> None:
        self._say, self._clock, self._steps = say, clock, steps
        self._from: tuple[float, int, int] | None = None

    def start(self, step: int, tokens: int) -> None:
        """Count from here."""
        self._from = self._clock(), step, tokens

    def tell(self, step: int, tokens: int, loss: float, accuracy: float, rate: float) -> float | None:
        """Write one line. Returns tokens a second since `start`, or None at the very first step."""
        assert self._from is not None
        began, first, seen = self._from
        line = f"step {step:,} of {self._steps:,}: loss {loss:.4f}, accuracy {accuracy:.3f}, rate {rate:.2e}"
        speed = None
        if step > first:
            seconds = max(self._clock() - began, 1e-9)
            speed = round((tokens - seen) / seconds, 1)
            left = (self._steps - step) * seconds / (step - first)
            line += f", {speed:,.0f} tokens/s, {duration(left)} left"
        self._say(f"{line}; {tokens:,} tokens so far")
        return speed


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s`, `15 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"
