"""Machines that share a folder keep their programs apart, and one that finds only others' says so once."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from chorus_server.engine.executor.cache_folder import cache_name, programs_folder


def test_the_name_says_what_it_is_for() -> None:
    name = cache_name("bfloat16")
    assert re.fullmatch(r"[a-z0-9_]+(-[a-z0-9_]+)?-[0-9a-f]{8}-\d+cores-cpu-jaxlib[0-9.]+-bf16", name), name
    assert name == cache_name("bfloat16") != cache_name("float32")


def test_another_processor_has_another_folder_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controls are an empty folder, the same processor, and a second start."""
    told: list[str] = []
    first = programs_folder(tmp_path, "float32", told.append)
    first.mkdir()
    (first / "a.program").write_bytes(b"")
    assert programs_folder(tmp_path, "float32", told.append) == first and not told
    monkeypatch.setattr(
        sys.modules[programs_folder.__module__], "processor_flags", lambda: frozenset({"sse", "amx_bf16"})
    )
    second = programs_folder(tmp_path, "float32", told.append)
    assert second != first and "amx_bf16" in second.name
    assert [first.name in line and second.name in line for line in told] == [True]
    second.mkdir()
    assert programs_folder(tmp_path, "float32", told.append) == second and len(told) == 1
