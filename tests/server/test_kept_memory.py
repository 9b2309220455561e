"""What a program of XLA's frees is there for the next one, without asking the system for it again."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
from chorus_server.kept_memory import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
import jax, jax.numpy as jnp

def scratch(x):
    wide = x[:, None] + jnp.arange(3000.0)  # 36 MB, and read twice
    return (wide @ jnp.ones((3000, 8))).sum() + (jnp.ones((8, 3000)) @ wide).sum()

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

given = jnp.ones(3000)
program = jax.jit(scratch).lower(given).compile()
assert program.memory_analysis().temp_size_in_bytes > 33 * 2**20
taken = []
for _ in range(12):
    before = pages()
    program(given).block_until_ready()
    taken.append(pages() - before)
print(min(taken))
"""


def _fewest_pages(*how: str) -> int:
    """New pages of memory that a call of a program took, at its best."""
    command = [sys.executable, "-c", PROGRAM, *how]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "server"), "JAX_PLATFORMS": "cpu"}
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_programs_scratch_memory_is_kept_for_its_next_call() -> None:
    assert _fewest_pages("keep") < 100
    assert _fewest_pages() > 2000  # the control
