"""`chorus compile` by two processes at once, and a server that starts from what they kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.served import CHORUS, SAME_NUMBERS, TINY, Served
from tests.places import ROOT
from tether import tethered

pytestmark = pytest.mark.usefixtures("compiled_quickly")
_COMPILED = re.compile(r"compiled (\d+) programs in [0-9.]+ s(?:, (\d+) of them from the compile cache)?;")
_CHILD = """
import contextlib, sys
from chorus_server.compile_cli import compile_command
from chorus_server.engine.executor import build, kept
compile_all = build.compile_all
def together(*arguments):
    print("begin", flush=True)
    sys.stdin.readline()
    return compile_all(*arguments)
build.compile_all = together
if sys.argv[1] == "alone":
    kept.sole_maker = lambda path, seconds: contextlib.nullcontext()
sys.argv = ["chorus compile"]
compile_command()
"""

_BOUND = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Starts a command for which a mode counts even if root runs it."""


def compiled_by_two(folder: Path, model: Path, how: str) -> tuple[int, list[int]]:
    """How many programs there are, and how many each process compiled, both starting at the same time."""
    settings: dict[str, Any] = {"model": model, "compile_cache_dir": folder, **TINY, **SAME_NUMBERS}
    env = {f"CHORUS_{name.upper()}": str(value) for name, value in settings.items()}
    command = tethered([sys.executable, "-c", _CHILD, how])
    children = [
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **env}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for child in children:
        # What is printed goes to the log.
        assert child.stderr is not None
        lines = iter(child.stderr.readline, "")
        assert any(line == "begin\n" for line in lines)
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    counts, programs = [], 0
    for child in children:
        text = child.communicate(timeout=1200)[1]
        found = _COMPILED.search(text)
        assert child.returncode == 0 and found is not None, text
        programs = int(found[1])
        counts.append(programs - int(found[2] or 0))
    return programs, counts


def test_together_they_compile_each_program_once_and_a_server_none(tmp_path: Path, tiny_model: Path) -> None:
    """Not even where it cannot write to the folder: an image's is another user's."""
    programs, counts = compiled_by_two(tmp_path / "cache", tiny_model, "shared")
    assert sum(counts) == programs, counts
    (folder,) = (tmp_path / "cache").iterdir()
    assert len(list(folder.glob("*.program"))) == programs and not list(folder.glob("*.making"))
    for each in (folder, folder.parent):
        each.chmod(0o555)
    options = {"model": tiny_model, "compile_cache_dir": tmp_path / "cache", **TINY}
    bound = [sys.executable, "-c", _BOUND]
    touched = subprocess.run([*bound, "touch", str(folder / "new")], stderr=subprocess.PIPE)
    assert touched.returncode != 0, "control"
    with Served(tmp_path / "data", command=[*bound, str(CHORUS), "serve"], **options) as server:
        server.wait_ready()
        assert server.metric("chorus_compiles_total") == 0
        assert server.metric("chorus_compile_seconds_count", cause="startup") == programs
        assert f"{programs} of them from the compile cache" in "\n".join(server.lines)


def test_without_the_lock_they_compile_some_twice(tmp_path: Path, tiny_model: Path) -> None:
    """The control."""
    programs, counts = compiled_by_two(tmp_path / "cache", tiny_model, "alone")
    assert sum(counts) > programs, counts


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    env = {
        "CHORUS_MODEL": str(tiny_model),
        "CHORUS_COMPILE_CACHE_DIR": "/proc/self",
        "CHORUS_SHAPES": "batch_rows=1",
    }
    code = "from chorus_server.compile_cli import compile_command; compile_command()"
    done = subprocess.run(
        tethered([sys.executable, "-c", code]), cwd=ROOT, env={**os.environ, **env}, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert done.returncode == 1 and "cannot be written" in done.stderr
