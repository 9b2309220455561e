"""BoolQ, CB, COPA and RTE by the paper's protocol, on the base that ships or another.

    python -m benchmarks.tuning.protocol FOLDER --task cb --task copa --steps 300
    python -m benchmarks.tuning.protocol FOLDER --model $CHORUS_SHARED/models/flan-t5-small-title

The commands are those of a user, against a server of its own in FOLDER: `chorus datasets prepare`, `chorus
tune` (T5's text forms, prompts of 100 rows, written answers, the checkpoint chosen on the development set)
and `chorus evaluate`. All else is the recipe's default, but for the steps (the paper has 30,000) and the most
tokens of an answer, which no label has. BoolQ is measured on the 600 rows of the table in docs/quality.md.
What is done is kept and not done again, and a job that was interrupted goes on. Needs the data sets of
`$CHORUS_SHARED`. How busy the machine is changes no figure. Prints a table, and leaves `protocol.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.machine import machine
from benchmarks.tuning.commands import Commands, serving
from benchmarks.tuning.results import DATA, save, written
from benchmarks.tuning.rows import load_rows

TASKS = ("cb", "copa", "rte", "boolq")
EVALUATIONS = 4
ANSWER_TOKENS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", dest="tasks", action="append", choices=TASKS)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="embedded")
    options = parser.parse_args()
    tasks = options.tasks or TASKS
    missing = [task for task in tasks if not (options.folder / f"{task}.json").exists()]
    if missing:
        # Nobody else asks this server: its slices may be long.
        settings = {"CHORUS_MODEL": options.model, "CHORUS_TUNING_SLICE_MS": "1000"}
        with serving(options.folder.resolve(), **settings) as chorus:
            for task in missing:
                save(options.folder, f"{task}.json", tuned(chorus, task, options.steps, options.seeds))
    runs = [json.loads((options.folder / f"{task}.json").read_text()) for task in tasks]
    save(options.folder, "protocol.json", {"machine": machine(), "tasks": runs})
    print("| task | rows | written: each | mean ± sd | a label | vote | ranked | loss, first to last |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for run in runs:
        print(f"| {' | '.join(row(run))} |")


def tuned(chorus: Commands, name: str, steps: int, seeds: int) -> dict[str, Any]:
    """A task's prompts tuned (or gone on with) and evaluated, both ways of answering."""
    task = f"superglue-{name}"
    if not (chorus.folder / name).exists():
        chorus.told("datasets", "prepare", f"superglue/{name}", DATA / "superglue", name)
        keep_reported(chorus.folder / name / "dev.jsonl", name)
    kept = chorus.folder / f"{name}.job"
    if not kept.exists():
        recipe = {
            "steps": steps,
            "evaluate_every_steps": max(1, steps // EVALUATIONS),
            "max_target_tokens": ANSWER_TOKENS,
        }
        knobs = [word for knob, value in recipe.items() for word in ("--recipe", f"{knob}={value}")]
        words = ("--ensemble", seeds, "--answer-by", "greedy", "--validation-from", "test")
        job = chorus.run("tune", "--document", f"{name}/job.json", *words, *knobs, "--detach")
        kept.write_text(job.strip())
    chorus.told("tune", "follow", kept.read_text())
    job = json.loads(chorus.run("tune", "show", kept.read_text(), "--json"))
    versions = json.loads(chorus.run("tasks", "versions", task, "--json"))["versions"]
    subjects = [f"{task}@{number}" for number in sorted(version["version"] for version in versions)]
    file = (f"{name}/dev.jsonl", "--document", f"{name}/evaluation.json")
    baselines = ("majority", "base", "base:calibrated")
    examples = ("--examples", f"{name}/train.jsonl")
    return {
        "task": name,
        "job": {field: job[field] for field in ("spec", "result", "started_at", "finished_at", "attempt")},
        "lineage": {each["version"]: each["lineage"] for each in versions},
        "greedy": compact(chorus.evaluated(*subjects, *file, "--answer-by", "greedy")),
        "ranked": compact(chorus.evaluated(*subjects, *baselines, *file, *examples)),
    }


def keep_reported(file: Path, name: str) -> None:
    """Keep the rows on which the table in docs/quality.md reports, if those are some of the split."""
    rows = load_rows(name, DATA)
    if not rows.task.report_rows:
        return
    kept = {row.text for row in rows.report}
    said = rows.task.template.format_map
    lines = [line for line in file.read_text().splitlines() if said(json.loads(line)) in kept]
    assert len(lines) == len(rows.report), f"{len(lines)} rows of {len(rows.report)}"
    file.write_text("".join(line + "\n" for line in lines))


def compact(result: dict[str, Any]) -> dict[str, Any]:
    """A result whose predictions are a text for each subject, a character for each row."""
    rows, labels = result["predictions"], result["subjects"][0]["confusion"]["labels"]
    places = {label: place for place, label in enumerate(labels)}
    said = zip(*([each["said"] for each in row["subjects"]] for row in rows), strict=True)
    subjects = [
        {name: each[name] for name in ("kind", "name", "metrics", "legal")}
        | {"predictions": written([places.get(str(text).strip(), -1) for text in answers])}
        for each, answers in zip(result["subjects"], said, strict=True)
    ]
    truth = written([places[row["answers"][0]] for row in rows])
    return {"rows": len(rows), "labels": labels, "truth": truth, "subjects": subjects}


def row(run: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table, in points of accuracy."""
    prompts = [each for each in run["greedy"]["subjects"] if each["kind"] == "task"]
    each = [100 * prompt["metrics"]["accuracy"] for prompt in prompts]
    ensemble = run["job"]["result"]["ensemble"]  # there is none if all prompts are the same
    ranked = {each["name"]: 100 * each["metrics"]["accuracy"] for each in run["ranked"]["subjects"]}
    curves = [lineage["curve"]["loss"] for lineage in run["lineage"].values()]
    first, last = (mean(loss for curve in curves for loss in curve[part]) for part in (_FIRST, _LAST))
    return (
        run["task"],
        str(run["greedy"]["rows"]),
        " ".join(f"{value:.1f}" for value in each),
        f"{mean(each):.1f}" + (f" ± {stdev(each):.1f}" if len(each) > 1 else ""),
        f"{100 * mean(prompt['legal'] for prompt in prompts):.1f} %",
        f"{100 * ensemble['metrics']['test_accuracy']:.1f}" if ensemble else "",
        ", ".join(f"{name} {value:.1f}" for name, value in ranked.items()),
        f"{first:.3f} to {last:.3f}",
    )


_FIRST, _LAST = slice(0, 5), slice(-20, None)
"""Points of a curve (of at most 200)."""


if __name__ == "__main__":
    main()
