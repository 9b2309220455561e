"""The registry benchmark's own code with a few thousand versions: its rows are a store that checks clean."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from prompts_store.store import PromptStore
from tests.places import ROOT


def test_a_small_registry_is_measured_and_its_rows_are_the_stores(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "registry.py", "--versions", "2000", "--publishes", "6"]
    command += ["--folder", tmp_path / "data", "--out", tmp_path / "registry.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    record = json.loads((tmp_path / "registry.json").read_text())
    assert record["set_up"]["rows"]["versions"] == 2000 and set(record["goals"]) == set(record["reached"])
    calls = record["measured"]["reads"]["calls"]
    assert calls["resolve_live"]["calls"] > 1000 and calls["list_page_by_label"]["calls"] > 0
    store = PromptStore.open(tmp_path / "data")
    try:
        problems = {problem.kind for problem in store.check().problems}
    finally:
        store.close()
    assert problems <= {"missing_blob", "wrong_manifest"}  # bulk rows have no values and no true manifest
