"""Environments of pip's with what others wrote, apart from the one that tests run in.

    python -m tests.pip_environment

makes them all, so that no test waits for one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SCHEMAS = TESTS / "schemas.txt"
"""Requirements of an environment that has others' schemas."""

RAY = TESTS / "ray.txt"
"""Requirements of an environment that has Ray Serve and Ray Data."""

EVERY = (
    RAY, TESTS / "clients" / "console" / "browser.txt", *(TESTS / "clients_in_the_wild").glob("*.txt"),
    TESTS / "postgres_18.txt", TESTS / "s3_server.txt", SCHEMAS,
)  # fmt: skip
"""Those of all environments, the largest first."""

REQUIRED = "CHORUS_CLIENTS_REQUIRED"
"""Where this is set, as in CI, a missing environment is a failure and no skip."""


def pip_environment(requirements: Path) -> Path:
    """The folder of programs, Python among them, of an environment that is made once, outside the repository,
    and kept for the next run.

    Fails the test in CI, or skips it with a reason, where pip cannot make it.

    Args:
        requirements: all that is installed, each with its version; with hashes, if any line has one.
    """
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chorus" / requirements.stem
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder, stamp = kept / wanted, kept / f"{wanted}.made"
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / f"{wanted}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of tests make one
        if not stamp.exists():
            if trouble := _trouble(folder, requirements):
                unavailable(f"pip cannot install {requirements.name}: {trouble}")
            stamp.touch()
    return folder / "bin"


def packages_of(requirements: Path) -> Path:
    """The folder of packages of an environment, for the path of another Python of the same version."""
    (packages,) = pip_environment(requirements).parent.glob("lib/python*/site-packages")
    return packages


def unavailable(reason: str) -> None:
    """Fail in CI, skip elsewhere."""
    (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(reason)


def _trouble(folder: Path, requirements: Path) -> str:
    """What went wrong; empty if nothing did."""
    try:
        venv.create(folder, with_pip=True, clear=True)
    except (subprocess.CalledProcessError, OSError) as error:
        return f"no environment: {type(error).__name__}"
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # What is imported is compiled then: some libraries have ten times as many files as anybody imports.
    command = [*install, "--no-compile", "--no-deps", "-r", requirements]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


if __name__ == "__main__":
    for requirements in EVERY:
        with contextlib.suppress(pytest.fail.Exception, pytest.skip.Exception):  # told by who needs it
            pip_environment(requirements)
