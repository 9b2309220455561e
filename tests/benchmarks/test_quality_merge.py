"""From finished runs to comparisons, tables and pictures."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.tuning.merge import merged
from benchmarks.tuning.plots import curves_picture, tasks_picture
from benchmarks.tuning.results import written
from benchmarks.tuning.tables import tables

TRUTH = [0, 1] * 20


def said(wrong: int) -> str:
    """Predictions of which the first `wrong` are wrong."""
    return written([1 - place if row < wrong else place for row, place in enumerate(TRUTH)])


def runs() -> dict[str, Any]:
    """Three prompts with 2, 4 and 6 mistakes of 40; zero-shot 20, model tuning 1 on the first 20 rows."""
    prompts = {
        "run": {"name": "sst2-prompts", "kind": "prompts", "task": "sst2"},
        "truth": written(TRUTH),
        "predictions": [said(2), said(4), said(6)],
        "ensemble": {"predictions": said(4)},
        "report": [{"accuracy": 0.95}, {"accuracy": 0.9}, {"accuracy": 0.85}],
        "recipes": [{"prompt_length": 20, "initialiser": "uniform", "learning_rate": 1.0}],
        "selection": [[[10, 0.6], [20, 0.8], [30, 0.9]]] * 3,
        "chosen_step": [30, 30, 30],
        "cpu_seconds": 12.0,
    }
    zero = {
        "run": {"name": "sst2-zero_shot", "kind": "zero_shot"},
        "truth": written(TRUTH),
        "predictions": [said(20)],
    }
    model = {
        "run": {"name": "sst2-model", "kind": "model"},
        "truth": written(TRUTH[:20]),
        "predictions": [said(1)[:20]],
        "transfer": {"amazon": {"predictions": [said(30)], "truth": written(TRUTH)}},
    }
    shift = {
        "run": {"name": "sst2-transfer", "kind": "transfer", "task": "sst2"},
        "transfer": {
            "amazon": {"rows": 40, "accuracy": [0.5], "truth": written(TRUTH), "predictions": [said(20)]}
        },
    }
    return {each["run"]["name"]: each for each in (prompts, zero, model, shift)}


def test_tuned_prompts_are_compared_on_the_same_rows() -> None:
    found = merged(runs())["tasks"]["sst2"]
    assert found["accuracy"] == {"mean": 0.9, "deviation": 0.05, "each": [0.95, 0.9, 0.85]}
    zero, model = found["beside"]["zero_shot"], found["beside"]["model"]
    assert (zero["accuracy"], zero["difference"], zero["clear"]) == (0.5, 0.4, True)
    assert (model["rows"], model["difference"], model["clear"]) == (20, -0.15, False)
    assert found["ensemble"]["over_best"]["difference"] == -0.05


def test_prompts_that_wrote_are_compared_by_what_they_rank_first() -> None:
    asked = runs()
    asked["sst2-ranked"] = {
        "run": {"name": "sst2-ranked", "kind": "ranked"},
        "truth": written(TRUTH[:20]),
        "predictions": [said(0)[:20]] * 3,
    }
    found = merged(asked)["tasks"]["sst2"]
    assert found["rows"] == 20 and found["accuracy"]["mean"] == 1.0
    assert (found["beside"]["zero_shot"]["rows"], found["beside"]["zero_shot"]["accuracy"]) == (20, 0.0)


def test_a_baseline_of_other_rows_is_refused() -> None:
    changed = runs()
    changed["sst2-zero_shot"]["truth"] = written([1 - place for place in TRUTH])
    with pytest.raises(ValueError, match="sst2-zero_shot ran on other rows"):
        merged(changed)


def test_domain_shift_stands_beside_model_tuning() -> None:
    (line,) = merged(runs())["shift"]
    assert (line["prompts"]["mean"], line["model"], line["difference"]["difference"]) == (0.5, 0.25, 0.25)


def test_tables_say_what_was_found() -> None:
    text = tables(merged(runs()))
    assert "| sst2 | 40 | **90.0** ± 5.0 (3) |  | 50.0 |  |  | 95.0 |" in text
    assert "| sst2 |  | **+40.0** [+" in text
    assert "| sst2 | 30 | 30, 30, 30 | 60.0 | 80.0 | 90.0 | 12 |" in text


def test_pictures_are_well_formed() -> None:
    document = merged(runs())
    for picture in (tasks_picture(document), curves_picture(document)):
        assert ElementTree.fromstring(picture).tag.endswith("svg")
