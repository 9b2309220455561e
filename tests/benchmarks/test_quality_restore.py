"""A kept result goes on in a checkout that never ran it."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.tuning.merge import merged
from benchmarks.tuning.restore import restore
from benchmarks.tuning.results import save
from tests.benchmarks.test_quality_merge import runs


def test_what_was_kept_is_done_and_merges_to_the_same_result(tmp_path: Path) -> None:
    kept = merged(runs())
    parts, prompts = tmp_path / "parts", tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "sst2-prompts.safetensors").write_bytes(b"values")
    mine = {"run": {"name": "sst2-zero_shot"}, "mine": True}
    save(parts / "sst2-zero_shot", "result.json", mine)
    assert "sst2-prompts" in restore(kept, parts, prompts)
    assert restore(kept, parts, prompts) == [], "a second time there is nothing to do"
    assert (parts / "sst2-prompts" / "prompts.safetensors").read_bytes() == b"values"
    assert json.loads((parts / "sst2-zero_shot" / "result.json").read_text()) == mine
    back = {path.parent.name: json.loads(path.read_text()) for path in parts.glob("*/result.json")}
    again = merged(back | {"sst2-zero_shot": runs()["sst2-zero_shot"]})
    assert again["tasks"] == kept["tasks"] and again["runs"] == kept["runs"]
