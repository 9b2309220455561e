"""Domain shift (section 5) with the base that ships: prompts of film and of product reviews change places.

    python -m benchmarks.tuning.shift FOLDER

What is measured is `sentiment` and `reviews`, the three prompts of each that ship, by `chorus evaluate`
against a server of its own in FOLDER. Rows are those that nothing was trained on or chosen by: SST-2's
development set (needs `$CHORUS_SHARED`), and the quarter of the reviews that `scripts/make_base.py` keeps
(needs the file of `amazon.py`). Prints tables, and leaves `shift.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.tuning.amazon import source
from benchmarks.tuning.commands import serving
from benchmarks.tuning.protocol import compact
from benchmarks.tuning.results import DATA, ROOT, read, save
from benchmarks.tuning.statistics import paired_bootstrap, right

sys.path.insert(0, str(ROOT / "scripts"))
from base_stages.tasks import collect, read_tasks

PROMPTS = ("sentiment", "reviews")
"""Task of the base that ships, and name of its file."""
SUBJECTS = (*(f"{task}@{number}" for task in PROMPTS for number in (1, 2, 3)), "majority", "base:calibrated")
INSTRUCTION = "Is this review negative or positive?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    write_rows(folder)
    asked = ("--label", "negative", "--label", "positive", "--instruction", INSTRUCTION)
    found: dict[str, Any] = {}
    with serving(folder) as chorus:
        for name in PROMPTS:
            file = (f"{name}.jsonl", "--examples", f"{name}-train.jsonl")
            found[name] = chorus.evaluated(*SUBJECTS, *file, *asked)
        chorus.told("evaluate", "table", *(result["job"] for result in found.values()))
    files = {name: compact(result) for name, result in found.items()}
    shifts = [shifted(files, name) for name in PROMPTS]
    save(folder, "shift.json", {"machine": machine(), "files": files, "shifts": shifts})
    print("| measured on | rows | its own prompts | the other's | difference |")
    print("| --- | --- | --- | --- | --- |")
    for each in shifts:
        low, high = each["low"], each["high"]
        interval = f"{each['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
        told = (each["file"], str(each["rows"]), f"{each['own']:.1f}", f"{each['other']:.1f}", interval)
        print(f"| {' | '.join(told)} |")


def write_rows(folder: Path) -> None:
    """The report rows of both tasks, and what they were trained on."""
    reviews = folder / "source" / "reviews"
    reviews.mkdir(parents=True, exist_ok=True)
    (reviews / "amazonReviewSnippets_GroundTruth.txt").write_bytes(source())
    collect(DATA, folder / "tasks", ["sentiment"])
    collect(reviews.parent, folder / "tasks", ["reviews"])
    for task in read_tasks(folder / "tasks"):
        for rows, name in ((task.report, task.name), (task.train, f"{task.name}-train")):
            lines = [json.dumps({**fields, "label": label}) + "\n" for fields, label in rows]
            (folder / f"{name}.jsonl").write_text("".join(lines))


def shifted(files: Mapping[str, Any], name: str) -> dict[str, Any]:
    """On one file, the other task's prompts less its own, in points."""
    truth = read(files[name]["truth"])
    by_task: dict[str, list[list[int]]] = {task: [] for task in PROMPTS}
    for subject in files[name]["subjects"]:
        task = subject["name"].partition("@")[0].rpartition("/")[2]
        if subject["kind"] == "task":
            by_task[task].append(read(subject["predictions"]))
    own = right(by_task.pop(name), truth)
    (other,) = (right(predictions, truth) for predictions in by_task.values())
    points = {key: round(100 * value, 2) for key, value in paired_bootstrap(other, own).items()}
    accuracy = {"own": round(100 * float(own.mean()), 2), "other": round(100 * float(other.mean()), 2)}
    return {"file": name, "rows": len(truth), **accuracy, **points}


if __name__ == "__main__":
    main()
