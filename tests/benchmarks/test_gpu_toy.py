"""The GPU benchmark's own code, at toy size on this machine: it runs, and its figures hold together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.compiling import QUICKLY
from tests.places import ROOT


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, ROOT / "benchmarks" / "gpu" / "run.py", "--toy"]
    command += ["--out", folder / "gpu.json", "--compile-cache", folder / "cache", "--minutes", "20"]
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "JAX_PLATFORMS": "cpu", **QUICKLY},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    found: dict[str, Any] = json.loads((folder / "gpu.json").read_text())
    return found


def test_every_part_is_there_with_its_goal(record: dict[str, Any]) -> None:
    parts = record["parts"]
    assert set(parts) == {"ceilings", "decode", "prefill", "labels", "base"}
    assert parts["ceilings"]["copy_gigabytes_per_second"] > 0 and parts["ceilings"]["matmul_teraflops"] > 0
    steps = parts["decode"]["found"]
    assert steps[0]["mean_positions"] == pytest.approx(12, abs=1.5)
    blocks = [tuple(step["block"].values()) for step in steps if step.get("chosen")]
    assert blocks == [tuple(block) for block in parts["labels"]["found"]["shapes"]["blocks"]]
    assert {step["goal"] for step in steps} == {1.5} and parts["prefill"]["found"]["goal"] == 0.55
    assert parts["prefill"]["found"]["residents"]["goal"] == 0.97
    assert record["toy"] and record["machine"]["commit"] and parts["base"]["attention"].startswith("pairs")


def test_figures_hold_together(record: dict[str, Any]) -> None:
    parts = record["parts"]
    bandwidth = parts["ceilings"]["copy_gigabytes_per_second"] * 1e9
    for step in parts["decode"]["found"]:
        moved = step["bytes"]["total"] - step["bytes"]["logits"]
        assert step["bound_seconds"] == pytest.approx(moved / bandwidth)
        assert step["times_bound"] == pytest.approx(step["step_seconds"] / step["bound_seconds"])
    base, labels = parts["base"]["found"], parts["labels"]["found"]
    made = base["batch"] * base["new_tokens"] / base["seconds"]["median"]
    assert base["tokens_per_second"] == pytest.approx(made)
    assert labels["requests_per_second"] > 0 and len(labels["seconds"]) == 2
    assert "peers" in parts["labels"]  # their figures, or why there are none


def test_time_that_is_up_is_said_and_what_was_measured_is_kept(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "gpu" / "run.py", "--toy", "--minutes", "0.001"]
    command += ["--only", "ceilings", "--out", tmp_path / "gpu.json", "--compile-cache", tmp_path / "cache"]
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1 and "FAILED: ceilings" in done.stderr
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert kept["parts"] == {"ceilings": {"error": "no time was left of 0.001 minutes"}}
