"""`chorus evaluate` on what a server might answer: its tables, its picture, and what it sends."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click import UsageError
from click.testing import CliRunner

from chorus.cli.evaluation_chart import evaluation_svg
from chorus.cli.evaluation_options import arguments_of, base_of, name_of, subject_of
from chorus.cli.evaluation_tables import EvaluatedFile, across_files, print_across_files, print_evaluation
from chorus.cli.root import chorus
from chorus.types import Evaluation

HOSTILE = "acme/<script>&\x1b[31m@1"


def subject(name: str, accuracy: float) -> dict[str, Any]:
    bins = [{"from": 0.4, "to": 0.47, "rows": 3, "confidence": 0.45, "accuracy": 0.33}]
    return {
        "kind": "task",
        "name": name,
        "answer_by": "greedy",
        "truncated": 0,
        "metrics": {"accuracy": accuracy, "matthews": -0.2, "mean": 0.1},
        "legal": 0.75,
        "confusion": {"labels": ["no", "yes"], "counts": [[1, 0, 1], [0, 2, 0]]},
        "reliability": {"ece": 0.12, "bins": bins},
    }


def evaluation() -> Evaluation:
    figures = {"difference": 0.25, "low": -0.1, "high": 0.5, "p_value": 0.04}
    comparison = {
        "first": 0,
        "second": 1,
        "resamples": 10_000,
        "metrics": {"accuracy": figures, "matthews": figures, "mean": figures},
        "mcnemar": {"only_first": 0, "only_second": 1, "p_value": 1.0},
    }
    return Evaluation(
        id="job-1",
        status="succeeded",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        spec={"file": "file-<1>"},
        result={
            "rows": 4,
            "subjects": [subject(HOSTILE, 0.5), subject("base", 0.75)],
            "comparisons": [comparison],
            "predictions": "file-2",
        },
    )


def test_the_tables_have_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(evaluation())
    shown = capsys.readouterr().out
    for figure in (
        "4 rows",
        "0.5000",
        "-0.2000",
        "0.7500",
        "0.1200",
        "+0.2500",
        "-0.1000 to +0.5000",
        "0.0400",
    ):
        assert figure in shown
    assert "none of them" in shown and "McNemar p 1.0000" in shown and "file-2" in shown
    assert "\x1b" not in shown, "a name cannot control the terminal"


def test_the_picture_is_well_formed_whatever_the_names() -> None:
    text = evaluation_svg(evaluation())
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg") and "<script>" not in text
    words = " ".join(root.itertext())
    assert "accuracy" in words and "ECE 0.120" in words and "0.750" in words


def test_references_become_subjects() -> None:
    assert subject_of("sst2@3", {}) == {"task": "sst2@3"}
    assert subject_of("ensemble:panel", {}) == {"ensemble": "panel"}
    assert subject_of("pack:acme/desk@2:refund: all/some", {}) == {
        "pack": "acme/desk@2",
        "question": "refund: all/some",
    }
    assert name_of({"pack": "acme/desk@2", "question": "refund"}) == "acme/desk@2:refund"
    assert subject_of("base", {"instruction": "x"}) == {"base": {"instruction": "x"}}
    assert subject_of("majority", {}) == {"majority": True} and name_of({"majority": True}) == "majority"
    given = {"instruction": "x", "few_shot": 4}
    assert subject_of("base", given) == {"base": given}, "as it was before base:few-shot"
    assert subject_of("base", given, True) == {"base": {"instruction": "x"}}
    assert subject_of("base:few-shot", given, True) == {"base": given}
    assert subject_of("base:calibrated", given, True) == {"base": {"instruction": "x", "calibrated": True}}


def of_seeds(*accuracies: float, first: int = 1, job: str = "job-1") -> Evaluation:
    """An evaluation of versions of one task, and of the base model."""
    seeds = [subject(f"default/qqp@{n}", accuracy) for n, accuracy in enumerate(accuracies, first)]
    base = {**subject("base:few-shot", 0.25), "kind": "base"}
    return evaluation().model_copy(update={"id": job, "result": {"rows": 4, "subjects": [*seeds, base]}})


QQP = EvaluatedFile("1", "qqp.jsonl", "qqp.jsonl")


def test_seeds_share_a_row_of_the_table_across_files(capsys: pytest.CaptureFixture[str]) -> None:
    mrpc = EvaluatedFile("2", "mrpc\x1b[31m", "mrpc")
    found = across_files([(QQP, of_seeds(0.5, 0.6, 0.7)), (mrpc, of_seeds(0.3, 0.3, 0.3))], "accuracy")
    assert [(each["subject"], each["file"], each["mean"], each["deviation"]) for each in found] == [
        ("default/qqp", "qqp.jsonl", 0.6, 0.1), ("base:few-shot", "qqp.jsonl", 0.25, None),
        ("default/qqp", "mrpc\x1b[31m", 0.3, 0.0), ("base:few-shot", "mrpc\x1b[31m", 0.25, None),
    ]  # fmt: skip
    print_across_files(found)
    shown = capsys.readouterr().out
    assert "0.6000 ± 0.1000 (3)" in shown and "0.2500" in shown and "\x1b" not in shown
    assert {each["metric"] for each in across_files([(QQP, of_seeds(0.5))], None)} == {"accuracy", "matthews"}


def test_files_of_one_name_stay_apart_and_each_version_counts_once() -> None:
    qqp, mrpc = (
        EvaluatedFile("1", "dev.jsonl", "qqp/dev.jsonl"),
        EvaluatedFile("2", "dev.jsonl", "mrpc/dev.jsonl"),
    )
    again = EvaluatedFile("1", "copy.jsonl", "copy.jsonl")
    jobs = [(qqp, of_seeds(0.9, 0.8)), (mrpc, of_seeds(0.5)), (again, of_seeds(0.8, 0.4, first=2))]
    cells = [
        (each["file"], each["values"]) for each in across_files(jobs, "accuracy") if "qqp" in each["subject"]
    ]
    assert cells == [("qqp/dev.jsonl", [0.9, 0.8, 0.4]), ("mrpc/dev.jsonl", [0.5])]
    base = [each["values"] for each in across_files(jobs, "accuracy") if "base" in each["subject"]]
    assert base == [[0.25], [0.25]]
    other = (qqp, of_seeds(0.7, job="job-2"))
    with pytest.raises(UsageError, match=r"qqp@1 has two figures .* 0.9 in job-1 and 0.7 in job-2. Name one"):
        across_files([*jobs, other], "accuracy")


def test_a_document_says_what_base_is_asked() -> None:
    base = {"template": "{question}", "normalizer": "t5_punctuation", "calibrated": True}
    document = {"subjects": [{"task": "squad"}, {"base": base}]}
    found = base_of(document)
    assert found == {"template": "{question}", "normalizer": "t5_punctuation"}
    assert subject_of("base:calibrated", found) == {"base": {**found, "calibrated": True}}
    assert [base_of({"subjects": odd}) for odd in (None, 3, [3], [{"base": 3}], [{"task": "a"}])] == [{}] * 5


def test_options_becomearguments_of() -> None:
    given = {
        "document": None, "format": "tsv", "labels": ("a", "b"), "metrics": (), "columns": ("text=sentence",),
        "metric_columns": ("group=question",), "target_texts": (), "target": None, "seed": 3,
        "answer_by": None, "examples": None,
    }  # fmt: skip
    assert arguments_of(given) == {
        "labels": ["a", "b"], "columns": {"text": "sentence"}, "seed": 3,
        "document": {"format": "tsv", "metric_columns": {"group": "question"}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["evaluate", "sst2"], "then the file"),
        (["evaluate", "sst2", "x.tsv", "--instruction", "good?"], "go with the reference base"),
        (["evaluate", "sst2", "x.tsv", "--column", "text"], "NAME=VALUE"),
        (["evaluate", "pack:desk", "x.tsv"], "pack:NAME:QUESTION"),
        (["evaluate", "sst2", "base:few-shot", "x.tsv"], "needs --few-shot"),
        (["evaluate", "sst2", "x.tsv", "--also", "y.tsv", "--chart", "x.svg"], "leave out --also"),
    ],
)
def test_a_command_that_was_not_understood_sends_nothing(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(chorus, arguments)
    assert result.exit_code == 2 and told in result.output, result.output
    missing = CliRunner().invoke(chorus, ["evaluate", "a", "b", "--chart", str(tmp_path / "no" / "x.svg")])
    assert missing.exit_code == 2 and "does not exist" in missing.output
