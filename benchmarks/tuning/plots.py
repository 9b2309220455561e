"""The merged result as pictures: docs/pictures/quality_tasks.svg and quality_curves.svg. No library.

python -m benchmarks.tuning.plots benchmarks/results/DATE-MACHINE-quality.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.tuning.results import ROOT

Document = dict[str, Any]
PICTURES = ROOT / "docs" / "pictures"
FONT = "font-family='ui-sans-serif, system-ui, sans-serif'"
GREY, DARK, BLUE = "#868e96", "#343a40", "#1864ab"
BASELINES = {
    "majority": ("#adb5bd", "majority"),
    "zero_shot": ("#e8590c", "zero-shot"),
    "calibrated": ("#c2255c", "calibrated"),
    "few_shot": ("#f59f00", "few-shot"),
    "model": ("#2b8a3e", "model tuning"),
}


def main() -> None:
    document = json.loads(Path(sys.argv[1]).read_text())
    for name, picture in (("tasks", tasks_picture(document)), ("curves", curves_picture(document))):
        path = PICTURES / f"quality_{name}.svg"
        path.write_text(picture)
        print(path.relative_to(ROOT))


def tasks_picture(document: Document) -> str:
    """A line a task: each seed a blue dot, the ensemble a ring, baselines as ticks."""
    tasks, left, right = document["tasks"], 110, 720
    height = 70 + 30 * len(tasks)

    def x(accuracy: float) -> float:
        return left + (right - left) * accuracy

    parts = [
        _line(at, 40, at, height - 20, "#e9ecef") + _text(at, height - 5, f"{10 * tick}")
        for tick in range(0, 11, 2)
        for at in [x(tick / 10)]
    ]
    for row, (name, each) in enumerate(tasks.items()):
        y = 58 + 30 * row
        parts.append(_text(left - 12, y + 4, name, anchor="end", colour=DARK))
        parts.append(_line(left, y, right, y, "#f1f3f5"))
        for key, (colour, _) in BASELINES.items():
            if (beside := each["beside"].get(key)) is not None:
                at = x(beside["accuracy"])
                parts.append(_line(at, y - 9, at, y + 9, colour, width=3))
        parts += [_dot(x(value), y, BLUE) for value in each["accuracy"]["each"]]
        if "ensemble" in each:
            parts.append(_ring(x(each["ensemble"]["accuracy"]), y, BLUE))
    parts.append(_legend(left))
    return _svg(760, height, "Accuracy of tuned prompts beside their baselines, a line a task", parts)


def curves_picture(document: Document) -> str:
    """Validation metric against step, a panel a task, a line a seed."""
    tasks = list(document["tasks"])
    width, height, columns = 170, 130, 5
    parts = []
    for number, task in enumerate(tasks):
        left, top = 20 + (number % columns) * width, 30 + (number // columns) * height
        curves = document["runs"][f"{task}-prompts"]["selection"]
        parts.append(_panel(task, curves, left, top, width - 30, height - 50))
    rows = -(-len(tasks) // columns)
    label = "Validation metric against training step, a panel a task, a line a seed"
    return _svg(20 + columns * width, 20 + rows * height, label, parts)


def _panel(
    task: str, curves: Sequence[Sequence[Sequence[float]]], left: float, top: float, w: float, h: float
) -> str:
    last = max(point[0] for curve in curves for point in curve)
    values = [point[1] for curve in curves for point in curve]
    low, high = min(values), max(values)
    span = max(high - low, 0.05)

    def at(point: Sequence[float]) -> str:
        return f"{left + w * point[0] / last:.1f},{top + h * (1 - (point[1] - low) / span):.1f}"

    lines = [
        f"<polyline points='{' '.join(at(point) for point in curve)}' fill='none' stroke='{BLUE}' "
        "stroke-width='1.5' stroke-opacity='0.6'/>"
        for curve in curves
    ]
    frame = _line(left, top + h, left + w, top + h, "#ced4da") + _line(left, top, left, top + h, "#ced4da")
    labels = [
        _text(left, top - 8, f"{task}: {100 * low:.0f} to {100 * high:.0f}", anchor="start", colour=DARK),
        _text(left + w, top + h + 14, f"{last:.0f} steps", anchor="end"),
    ]
    return "".join([frame, *lines, *labels])


def _legend(left: float) -> str:
    parts, x = [_dot(left, 18, BLUE), _text(left + 8, 22, "a prompt", anchor="start")], left + 80
    parts += [_ring(x, 18, BLUE), _text(x + 10, 22, "ensemble", anchor="start")]
    for colour, name in BASELINES.values():
        x += 92
        parts += [_line(x, 10, x, 26, colour, width=3), _text(x + 7, 22, name, anchor="start")]
    return "".join(parts)


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    inside = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' role='img' "
        f"aria-label='{label}'>\n<rect width='{width}' height='{height}' rx='8' fill='#ffffff'/>\n"
        f"{inside}\n</svg>\n"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    ends = f"x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'"
    return f"<line {ends} stroke='{colour}' stroke-width='{width}'/>"


def _dot(x: float, y: float, colour: str) -> str:
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='{colour}' fill-opacity='0.55'/>"


def _ring(x: float, y: float, colour: str) -> str:
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='7' fill='none' stroke='{colour}' stroke-width='1.5'/>"


def _text(x: float, y: float, text: str, anchor: str = "middle", colour: str = GREY) -> str:
    style = f"font-size='11' fill='{colour}' text-anchor='{anchor}' {FONT}"
    return f"<text x='{x:.1f}' y='{y:.1f}' {style}>{text}</text>"


if __name__ == "__main__":
    main()
