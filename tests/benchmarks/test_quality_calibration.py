"""What docs/quality.md says of calibrations, on rows whose answers are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.tuning.calibration import mean, measured, noise, table
from chorus_server.calibration.applying import softmax


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Scores three times as sure as the answers that are drawn."""
    chance = np.random.default_rng(0)
    kept = {"pieces": np.array([2, 3])}
    for name, rows in (("validation", 300), ("test", 1500)):
        scores = chance.normal(0, 6, (1, rows, 2)).astype(np.float32)
        shares = [softmax([float(score) / 3 for score in row]) for row in scores[0]]
        kept[name] = scores
        kept[f"{name}_truth"] = np.array([int(chance.random() < share[1]) for share in shares])
    np.savez(tmp_path / "sst2.npz", **kept)  # type: ignore[arg-type]
    return tmp_path


def test_what_is_too_sure_is_found_and_mended(folder: Path) -> None:
    task = measured(folder / "sst2.npz")
    assert (task["validation_rows"], task["test_rows"], task["seeds"]) == (300, 1500, 1)
    assert mean(task, "temperature", "temperature") == pytest.approx(3, rel=0.25)
    assert mean(task, "temperature", "ece") < mean(task, "raw", "ece") / 3
    assert mean(task, "raw", "accuracy") == mean(task, "temperature", "accuracy")
    assert table({"sst2": task}).count("\n") == 3
    # The control: what is left is what so few rows show of right probabilities.
    assert mean(task, "temperature", "ece") < 3 * mean(task, "temperature", "noise")


def test_noise_is_less_on_more_rows() -> None:
    assert noise([[0.7, 0.3]] * 2000, 0) < noise([[0.7, 0.3]] * 50, 0)
