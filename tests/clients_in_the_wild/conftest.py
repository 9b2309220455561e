"""An environment with clients that others wrote, as pinned in requirements.txt."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
REQUIRED = "CHORUS_CLIENTS_REQUIRED"
"""Where this is set, as in CI, a missing environment is a failure and no skip."""


@pytest.fixture(scope="session")
def clients() -> Path:
    """Its Python. It is made once, outside the repository, and kept for the next run; skips, with a reason,
    where pip cannot make it."""
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chorus" / "clients"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder, stamp = kept / wanted, kept / f"{wanted}.made"
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / f"{wanted}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of tests make one
        if not stamp.exists():
            trouble = _make(folder)
            if trouble and os.environ.get(REQUIRED):
                pytest.fail(f"pip cannot install the clients: {trouble}")
            if trouble:
                pytest.skip(f"pip cannot install the clients: {trouble}")
            stamp.touch()
    return folder / "bin" / "python"


def _make(folder: Path) -> str:
    """What went wrong; empty if nothing did."""
    try:
        venv.create(folder, with_pip=True, clear=True)
    except (subprocess.CalledProcessError, OSError) as error:
        return f"no environment: {type(error).__name__}"
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*install, "--no-deps", "-r", REQUIREMENTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""
