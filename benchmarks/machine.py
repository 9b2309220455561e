"""What a result was measured on and with: goes into every result file."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

PACKAGES = ("jax", "jaxlib", "flax", "torch", "transformers", "peft", "ctranslate2", "numpy")

INSTRUCTION_SETS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "amx_int8", "asimd", "sve", "i8mm", "bf16",
)  # fmt: skip
"""What decides how fast a processor multiplies, as Linux names it."""


def machine() -> dict[str, object]:
    """Processor, its instruction sets, cores, memory, system; `name` goes into file names."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "name": f"{cores}core-cpu",
        "processor": _processor(),
        "instruction_sets": instruction_sets(Path("/proc/cpuinfo").read_text()),
        "cores": cores,
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "commit": commit(),
    }


def commit() -> str:
    """The checkout's commit, with `+` when files differ from it."""
    here = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True)
    dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True)
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def versions(python: Path) -> dict[str, str]:
    """Versions of the packages that matter in an environment, by its Python."""
    program = (
        "import importlib.metadata as m, platform\n"
        f"for n in {PACKAGES!r}:\n"
        "    try: print(n, m.version(n))\n"
        "    except m.PackageNotFoundError: pass\n"
    )
    lines = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout
    return dict(line.split() for line in lines.splitlines())


def busy_seconds() -> float:
    """Processor seconds that this machine has spent on anything since it started, all cores together."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()
    user, nice, system, _, _, interrupt, soft, steal = map(int, words[1:9])
    return (user + nice + system + interrupt + soft + steal) / os.sysconf("SC_CLK_TCK")


def instruction_sets(cpuinfo: str) -> list[str]:
    """Those of `INSTRUCTION_SETS` that the first processor of `/proc/cpuinfo` has."""
    lines = (line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    flags = next((words.split() for name, words in lines if name.strip() in ("flags", "Features")), [])
    return [name for name in INSTRUCTION_SETS if name in flags]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
