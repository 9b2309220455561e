"""What benchmarks beside peers stand on: a contender's process, the peers' environment, the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHARED = Path(os.environ.get("CHORUS_SHARED", ROOT.parent / "shared"))


class Worker:
    """A contender's process; see `serve_lines`."""

    def __init__(self, command: list[Any], log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )

    def run(self, contender: str, folder: Path) -> dict[str, Any]:
        """One turn. Raises RuntimeError with the worker's own words."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"contender": contender, "folder": str(folder)}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{contender} ended:\n{self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{contender}: {answer['error']}\n{answer['trace']}")
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def peers_environment() -> Path:
    """Python of an environment with `requirements.txt`, made on first use."""
    folder = ROOT / ".chorus" / "peers"
    python = folder / "bin" / "python"
    if not python.exists():
        sys.stderr.write("making the peers' environment (PyTorch for CPU; about 1 GB)\n")
        venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"]
    subprocess.run(install, check=True)
    return python


def real_or_random_model(scratch: Path, size: str = "small", vocabulary: Path | None = None) -> Path:
    """The real model where it is, else random weights of the same shape in the same format.

    Args:
        size: another than `small` is always random.
        vocabulary: SentencePiece file of a random model; without one it reads no text.
    """
    real = SHARED / "models" / "flan-t5-small-title"
    if real.exists() and size == "small":
        return real
    chorus = Path(sys.executable).parent / "chorus"
    command: list[Any] = [chorus, "models", "init", "--size", size, "--to", "hf", scratch / "model"]
    if vocabulary is not None:
        command += ["--vocabulary", vocabulary]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return scratch / "model"
