"""Puts finished runs together: benchmarks/results/DATE-MACHINE-quality.json, and what they say.

python -m benchmarks.tuning.merge            writes the result
python -m benchmarks.tuning.merge --tables   prints its tables in Markdown, for docs/quality.md
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.tuning.results import PARTS, ROOT, read
from benchmarks.tuning.statistics import paired_bootstrap, right
from benchmarks.tuning.tables import tables
from benchmarks.tuning.tasks import TASKS

BASELINES = ("majority", "zero_shot", "calibrated", "few_shot", "model")
RESULTS = ROOT / "benchmarks" / "results"
Document = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", action="store_true")
    options = parser.parse_args()
    document = merged(finished_runs())
    if options.tables:
        print(tables(document))
        return
    path = RESULTS / f"{document['date']}-{document['machine']['name']}-quality.json"
    path.write_text(json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n")
    print(f"{path.relative_to(ROOT)}: {len(document['runs'])} runs, {path.stat().st_size / 1024:.0f} KiB")


def finished_runs() -> dict[str, Document]:
    """Of `build/quality`, by name."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(PARTS.glob("*/result.json"))}


def merged(runs: dict[str, Document]) -> Document:
    """One document: where, with what, the comparisons, and every run."""
    kept = {name: {key: run[key] for key in run if key != "machine"} for name, run in runs.items()}
    return {
        "what": "quality",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "tasks": {name: compared(name, runs) for name in TASKS if f"{name}-prompts" in runs},
        "shift": shifted(runs),
        "runs": kept,
    }


def compared(task: str, runs: dict[str, Document]) -> Document:
    """Tuned prompts of a task beside each baseline that ran; `clear` is an interval above 0."""
    # Where prompts wrote their answers, `ranked` has them asked as the baselines are: for labels.
    ours = runs.get(f"{task}-ranked", runs[f"{task}-prompts"])
    truth = read(ours["truth"])
    hits = right([read(member) for member in ours["predictions"]], truth)
    accuracies = hits.mean(axis=1)
    found: Document = {
        "seeds": len(hits),
        "rows": len(truth),
        "accuracy": {
            "mean": round(float(accuracies.mean()), 4),
            "deviation": round(float(accuracies.std(ddof=1)), 4) if len(hits) > 1 else None,
            "each": accuracies.round(4).tolist(),
        },
        "beside": {},
    }
    for name in BASELINES:
        if (other := runs.get(f"{task}-{name}")) is not None:
            found["beside"][name] = _beside(hits, truth, other)
    if "ensemble" in ours:
        found["ensemble"] = _ensemble(hits, truth, ours)
    return found


def _beside(hits: Any, truth: list[int], other: Document) -> Document:
    said = [read(member) for member in other["predictions"]]
    rows = min(len(said[0]), len(truth))  # what is dear may have run on the first rows only
    if read(other["truth"])[:rows] != truth[:rows]:
        raise ValueError(f"{other['run']['name']} ran on other rows; run it again")
    theirs = right([member[:rows] for member in said], truth[:rows])
    found = paired_bootstrap(hits[:, :rows], theirs)
    return {
        "accuracy": round(float(theirs.mean()), 4),
        "rows": rows,
        **{name: round(value, 4) for name, value in found.items()},
        "clear": found["low"] > 0,
    }


def _ensemble(hits: Any, truth: list[int], ours: Document) -> Document:
    vote = right([read(ours["ensemble"]["predictions"])], truth)
    best = hits[[int(hits.mean(axis=1).argmax())]]
    return {
        "accuracy": round(float(vote.mean()), 4),
        "over_mean": _rounded(paired_bootstrap(vote, hits)),
        "over_best": _rounded(paired_bootstrap(vote, best)),
    }


def shifted(runs: dict[str, Document]) -> list[Document]:
    """Prompt tuning beside model tuning on what neither was tuned on."""
    found = []
    for name, run in runs.items():
        if not name.endswith("-transfer"):
            continue
        other = runs.get(name.replace("-transfer", "-model"), {}).get("transfer", {})
        for target, ours in run["transfer"].items():
            mine = right([read(member) for member in ours["predictions"]], read(ours["truth"]))
            line: Document = {
                "tuned_on": run["run"]["task"],
                "measured_on": target,
                "rows": ours["rows"],
                "prompts": {"mean": round(float(mine.mean()), 4), "each": ours["accuracy"]},
            }
            if target in other:
                theirs = right([read(m) for m in other[target]["predictions"]], read(ours["truth"]))
                line["model"] = round(float(theirs.mean()), 4)
                line["difference"] = _rounded(paired_bootstrap(mine, theirs))
            found.append(line)
    return found


def _rounded(found: dict[str, float]) -> dict[str, float]:
    return {name: round(float(np.float64(value)), 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
