"""The commands of docs/evaluation.md for the paper's Tables 1 and 2, on small files in the official formats.

Table 1: SQuAD and MRQA are prepared, prompts are tuned on SQuAD, and one table has them and the base model on
both. Table 2: MRPC and QQP, whose columns and labels have other names; here the base model alone is asked.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.end_to_end.served import Served
from tests.end_to_end.test_tune_command import chorus
from tests.places import FIXTURES

pytestmark = pytest.mark.usefixtures("compiled_quickly")
OFFICIAL = FIXTURES / "datasets" / "official"
SMALL = {
    "prompt_length": 4, "steps": 2, "batch_size": 4, "evaluate_every_steps": 2, "checkpoint_every_steps": 2,
    "max_input_tokens": 32, "max_target_tokens": 16,
}  # fmt: skip


def done(served: Served, *words: str) -> str:
    ran = chorus(served, *words)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_prompts_of_squad_and_the_base_are_put_into_one_table(served: Served, tmp_path: Path) -> None:
    squad, mrqa = tmp_path / "squad", tmp_path / "mrqa"
    for folder in (squad, mrqa):
        done(served, "datasets", "prepare", folder.name, str(OFFICIAL / folder.name), str(folder))
    recipe = [word for name, value in SMALL.items() for word in ("--recipe", f"{name}={value}")]
    document = ("--document", str(squad / "job.json"), "--validation-rows", "1")
    done(served, "tune", *document, "--ensemble", "2", *recipe)
    files = (str(squad / "dev.jsonl"), "--also", str(mrqa / "BioASQ.jsonl"))
    asked = ("--document", str(squad / "evaluation.json"))
    shown = done(served, "evaluate", "squad@1", "squad@2", "base", *files, *asked)
    jobs = re.findall(r"^(job-\w+) started$", shown, re.MULTILINE)
    assert len(jobs) == 2
    found = json.loads(done(served, "evaluate", "table", *jobs, jobs[0], "--json"))["figures"]
    cells = {(each["metric"], each["subject"], each["file"]): each for each in found}
    assert set(cells) == {
        (metric, subject, file)
        for metric in ("squad_em", "squad_f1")
        for subject in ("default/squad", "base")
        for file in ("dev.jsonl", "BioASQ.jsonl")
    }
    # Each version counts once, though one evaluation was named twice.
    assert all(len(cell["values"]) == (1 if key[1] == "base" else 2) for key, cell in cells.items())
    table = done(served, "evaluate", "table", *jobs, "--metric", "squad_f1")
    assert table.split()[:3] == ["squad_f1", "dev.jsonl", "BioASQ.jsonl"] and table.count("(2)") == 2
    # The prompts and the base model read one text.
    subjects = json.loads(done(served, "evaluate", "show", jobs[0], "--json"))["spec"]["subjects"]
    version = served.http.get("/v1/tasks/squad/versions/1").json()
    assert subjects[2]["base"]["template"] == version["template"]
    assert subjects[2]["base"]["normalizer"] == version["settings"]["normalizer"] == "t5_punctuation"


def test_what_reads_mrpc_is_asked_qqp_whose_columns_and_labels_have_other_names(
    served: Served, tmp_path: Path
) -> None:
    for name in ("mrpc", "qqp"):
        done(served, "datasets", "prepare", f"glue/{name}", str(OFFICIAL / "glue"), str(tmp_path / name))
    asked = ("--document", str(tmp_path / "mrpc" / "evaluation.json"))
    columns = ("--column", "sentence1=question1", "--column", "sentence2=question2")
    answers = ("--target-text", "duplicate=equivalent", "--target-text", "not_duplicate=not_equivalent")
    qqp = (str(tmp_path / "qqp" / "dev.jsonl"), *asked, *columns)
    refused = chorus(served, "evaluate", "base", *qqp)
    assert refused.returncode == 1 and "'duplicate' is none of the labels" in refused.stdout + refused.stderr
    shown = done(served, "evaluate", "base", str(tmp_path / "mrpc" / "dev.jsonl"), *asked)
    shown += done(served, "evaluate", "base", *qqp, *answers)
    jobs = re.findall(r"^(job-\w+) started$", shown, re.MULTILINE)
    table = done(served, "evaluate", "table", *jobs, "--metric", "f1_binary")
    assert table.split()[0] == "f1_binary" and len(jobs) == 2
