"""What a program of XLA's frees is there for the next one, without asking the system for it again."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from chorus_server import kept_memory

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


BESIDE = """
import ctypes, resource, sys
from chorus_server import kept_memory
if "given back sooner" in sys.argv:
    kept_memory._FREE_END = kept_memory._LARGEST
assert kept_memory.keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def take(mebibytes):
    block = library.malloc(mebibytes * 2**20)
    ctypes.memset(block, 1, mebibytes * 2**20)
    return block

beside, large = take(300), take(300)
library.free(beside)
library.free(large)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
take(300)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _pages_beside(*how: str) -> int:
    """New pages that a block takes after it and another were freed beside each other."""
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "server")}
    command = [sys.executable, "-c", BESIDE, *how]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_large_block_is_kept_together_with_what_is_free_beside_it() -> None:
    assert _pages_beside() < 100
    assert _pages_beside("given back sooner") > 50_000  # the control


HEAPS = """
import ctypes, sys, threading
from chorus_server.kept_memory import keep_freed_memory
assert keep_freed_memory(one_heap="one" in sys.argv)
library = ctypes.CDLL(None)
library.malloc.restype = library.open_memstream.restype = ctypes.c_void_p
took, told = threading.Barrier(3), threading.Event()

def take():
    library.malloc(100)
    took.wait()
    told.wait()

threads = [threading.Thread(target=take) for _ in range(2)]
for thread in threads:
    thread.start()
took.wait()
text, size = ctypes.c_char_p(), ctypes.c_size_t()
stream = ctypes.c_void_p(library.open_memstream(ctypes.byref(text), ctypes.byref(size)))
library.malloc_info(0, stream)
library.fclose(stream)
told.set()
print(text.value.count(b"<heap "))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize(("how", "heaps"), [("own", 3), ("one", 1)])
def test_threads_of_a_server_do_not_wait_for_each_others_memory(how: str, heaps: int) -> None:
    """The control is a worker's, whose threads share one heap."""
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "server")}
    command = [sys.executable, "-c", HEAPS, how]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert int(told) == heaps


class OlderLibrary:
    """glibc 2.31's `mallopt`, as far as it decides which blocks are kept."""

    def __init__(self) -> None:
        self.largest_kept, self.chooses = 128 * 1024, True

    def gnu_get_libc_version(self) -> bytes:
        return b"2.31"

    def mallopt(self, number: int, value: int) -> int:
        if number == kept_memory._MMAP_THRESHOLD:
            if value > 2**25:
                return 0
            self.largest_kept = value
        if number in (kept_memory._MMAP_THRESHOLD, kept_memory._TRIM_THRESHOLD):
            self.chooses = False
        return 1


def test_an_older_library_keeps_what_it_agrees_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """It used to keep up to 32 MiB by its own choice, and must not be told to keep 128 KiB for good."""
    library = OlderLibrary()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert kept_memory.keep_freed_memory()
    assert library.largest_kept == 2**25 and not library.chooses
