"""Sets everything up and runs every check: format, lint, types, import rules, tests.

python3 scripts/test.py                everything
python3 scripts/test.py tests/engine   the tests in a place, with pytest's own options
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
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


def compile_cache() -> dict[str, str]:
    """What makes every process of the tests keep its compiled programs in one folder, as a server does.

    Workers and child processes compile a program once, and the next run reads it. JAX names an entry by all
    that it was compiled from; the folder is named by the processor, for which it was compiled. A bound on its
    size also makes JAX lock it, so that no process reads what another is still writing.
    """
    cpu = Path("/proc/cpuinfo")
    flags = [line for line in cpu.read_text().splitlines() if "flags" in line][:1] if cpu.exists() else []
    processor = hashlib.sha256("".join(flags).encode()).hexdigest()[:12]
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return {
        "JAX_COMPILATION_CACHE_DIR": str(home / "chorus" / f"test-programs-{processor}"),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(1 << 30),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def main() -> int:
    python = environment("test")
    tools = python.parent
    chosen = sys.argv[1:]
    failed = []
    for name, command in () if chosen else CHECKS:
        started = time.monotonic()
        code = subprocess.run([tools / command[0], *command[1:]], cwd=ROOT).returncode
        sys.stdout.write(f"{name}: {'ok' if code == 0 else 'FAILED'} ({time.monotonic() - started:.0f} s)\n")
        sys.stdout.flush()
        if code:
            failed.append(name)
    arguments = chosen or ["-n", "2", "--dist", "worksteal", "--durations", "15"]
    # Not one GEMM's speed matters here, and two pools of two threads on two cores ruin both.
    settings = {"JAX_PLATFORMS": "cpu", **compile_cache(), **os.environ}
    if subprocess.run(tethered([python, "-m", "pytest", *arguments]), cwd=ROOT, env=settings).returncode:
        failed.append("tests")
    if failed:
        sys.stdout.write(f"failed: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
