"""Sets everything up and runs every check: format, lint, types, import rules, tests.

python3 scripts/test.py                       everything
python3 scripts/test.py tests/server/engine   the tests in a place, with pytest's own options
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bootstrap import ROOT, environment
from tether import tethered

CHECKS = (
    ("format", ["ruff", "format", "--check", "--quiet", "."]),
    ("lint", ["ruff", "check", "--quiet", "."]),
    ("types", ["mypy"]),
    ("import rules", ["lint-imports"]),
)


LEAST_BYTES = 6 << 30
"""Free in memory, for the files of all tests."""


def compile_cache(folder: str) -> dict[str, str]:
    """Environment variables that make all test processes keep their compiled programs in one folder, as a
    server does, so that workers and child processes compile a program once."""
    return {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def scratch() -> Path | None:
    """A folder in memory, if there is room: most of what tests wait for is a disk that syncs their databases.
    None is the system's own."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or os.statvfs(memory).f_flag & os.ST_NOEXEC:
        return None
    return memory if shutil.disk_usage(memory).free >= LEAST_BYTES else None


def main() -> int:
    python = environment("test")
    tools = python.parent
    chosen = sys.argv[1:]
    failed = []
    if not chosen:  # beside the checks, so that no test waits for pip
        subprocess.Popen(tethered([python, "-m", "tests.pip_environment"]), cwd=ROOT)
    for name, command in () if chosen else CHECKS:
        started = time.monotonic()
        code = subprocess.run([tools / command[0], *command[1:]], cwd=ROOT).returncode
        sys.stdout.write(f"{name}: {'ok' if code == 0 else 'FAILED'} ({time.monotonic() - started:.0f} s)\n")
        sys.stdout.flush()
        if code:
            failed.append(name)
    arguments = chosen or ["-n", "2", "--dist", "worksteal", "--durations", "15"]
    place = scratch()
    # The speed of no single GEMM matters here, and two pools of two threads on two cores would slow each
    # other down.
    with tempfile.TemporaryDirectory(prefix="chorus-tests-", dir=place, ignore_cleanup_errors=True) as folder:
        compiled = Path(folder, "compiled")
        settings = {"JAX_PLATFORMS": "cpu", **compile_cache(str(compiled)), **os.environ}
        if not chosen and place:
            arguments += ["--basetemp", str(Path(folder, "tests")), "-o", "tmp_path_retention_policy=failed"]
        if subprocess.run(tethered([python, "-m", "pytest", *arguments]), cwd=ROOT, env=settings).returncode:
            failed.append("tests")
    if failed:
        sys.stdout.write(f"failed: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
