"""What making the base measured, as one result and its pictures.

    python -m benchmarks.pretraining.result WORK

Reads what `scripts/make_base.py` left in WORK. Writes benchmarks/results/DATE-MACHINE-base.json,
docs/pictures/base_loss.svg (both objectives and the mixture, by tokens) and docs/pictures/base_adaptation.svg
(figures 3(c) and 3(d) of Lester et al. 2021), and prints the tables of docs/pretraining.md.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.charts import Chart
from benchmarks.machine import machine

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
STAGES = {"pretrained": "span corruption", "adapted": "LM adaptation", "mixed": "mixture"}
SENTINEL = "span corruption with sentinel"

Document = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    found = read_result(parser.parse_args().work)
    day = datetime.now(UTC).date().isoformat()
    path = ROOT / "benchmarks" / "results" / f"{day}-{found['machine']['name']}-base.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    (PICTURES / "base_loss.svg").write_text(loss_chart(found).svg())
    if found["figure"]:
        (PICTURES / "base_adaptation.svg").write_text(adaptation_chart(found).svg())
    print(path.name, "", *table(found), sep="\n")


def read_result(work: Path) -> Document:
    """Curves, prompts' figures and figures 3(c) and 3(d) of a working folder."""
    curves = {
        stage: [json.loads(line) for line in (work / stage / "curve.jsonl").read_text().splitlines()]
        for stage in STAGES
        if (work / stage / "curve.jsonl").exists()
    }
    figure = work / "figure.json"
    return {
        "what": "base",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "card": json.loads((work / "base" / "card.json").read_text()),
        "curves": curves,
        "figure": json.loads(figure.read_text()) if figure.exists() else [],
    }


def loss_chart(found: Document) -> Chart:
    """Loss a token against million tokens, stage after stage."""
    series: dict[str, list[tuple[float, float]]] = {}
    before = 0.0
    for stage, lines in found["curves"].items():
        train = [line for line in lines if line["split"] == "train"]
        series[STAGES[stage]] = [(round(before + line["tokens"] / 1e6, 4), line["loss"]) for line in train]
        before += train[-1]["tokens"] / 1e6
    return Chart("Making the base", "million tokens", "loss a token, nats", series)


def adaptation_chart(found: Document) -> Chart:
    """Mean accuracy of tuned prompts against percent of the adaptation; the sentinel's at 0 beside it."""
    series: dict[str, list[tuple[float, float]]] = {}
    for each in found["figure"]:
        point = (_percent(each["label"]), 100 * mean(each["report"]))
        name = f"{each['task']}, sentinel" if each["label"] == SENTINEL else each["task"]
        series.setdefault(name, []).append(point)
    return Chart(
        "Prompts tuned on the way of LM adaptation",
        "percent of the adaptation (0: span corruption)",
        "accuracy, %",
        {name: sorted(points) for name, points in sorted(series.items())},
    )


def table(found: Document) -> list[str]:
    """Markdown: the shipped prompts, then the checkpoints of the figures."""
    lines = [
        "| task | prompts | bag of words | majority | seen in the mixture |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in found["card"]["prompts"]:
        lines.append(
            f"| {each['task']} | {_spread(each['accuracy'])} | {100 * each['bag_of_words']:.1f} | "
            f"{100 * each['majority']:.1f} | {'no' if each['unseen'] else 'yes'} |"
        )
    tasks = sorted({each["task"] for each in found["figure"]})
    lines += ["", f"| checkpoint | {' | '.join(tasks)} |", "| --- |" + " --- |" * len(tasks)]
    by_place: dict[str, dict[str, str]] = {}
    for each in found["figure"]:
        by_place.setdefault(each["label"], {})[each["task"]] = _spread(each["report"])
    for label in sorted(by_place, key=lambda label: (_percent(label), label)):
        lines.append(f"| {label} | {' | '.join(by_place[label].get(task, '') for task in tasks)} |")
    return lines


def _percent(label: str) -> float:
    """`adapted 30 percent` is 30; span corruption is 0."""
    return float(label.split()[1]) if label.startswith("adapted") else 0.0


def _spread(accuracies: list[float]) -> str:
    deviation = stdev(accuracies) if len(accuracies) > 1 else 0.0
    return f"{100 * mean(accuracies):.1f} ± {100 * deviation:.1f}"


if __name__ == "__main__":
    main()
