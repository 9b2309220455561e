"""The result of an evaluation as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import click

from chorus.cli.output import clean, print_table
from chorus.types import Evaluation

MOST_SHOWN_LABELS = 12


def print_evaluation(job: Evaluation) -> None:
    """Print the metrics of each subject, how they compare, and where labels were confused."""
    result = job.result
    subjects = result.get("subjects") or []
    names = metrics_of(job)
    click.echo(f"{result.get('rows')} rows")
    columns = ("subject", *(f"#{name}" for name in names), "#legal", "#ECE")
    print_table(columns, (_measures(each, names) for each in subjects))
    for comparison in result.get("comparisons") or []:
        _print_comparison(comparison, subjects, names)
    for each in subjects:
        _print_confusion(each)
    click.echo(clean(f"predictions: {result.get('predictions')}"))


def across_files(jobs: Sequence[tuple[str, Evaluation]], metric: str | None) -> list[dict[str, Any]]:
    """Each metric of each subject on each file: `metric`, `subject`, `file`, `values`, their `mean` and their
    standard deviation (n - 1; none of a single one). Versions of one task are one subject.

    Args:
        jobs: evaluations that succeeded, each with its file's name.
        metric: the only one to take.
    """
    values: dict[tuple[str, str, str], list[float]] = {}
    for file, job in jobs:
        for name in metrics_of(job):
            for each in job.result.get("subjects") or []:
                if metric in (None, name):
                    key = (name, _without_version(each), file)
                    values.setdefault(key, []).append(float(each["metrics"][name]))
    return [
        {
            "metric": name,
            "subject": subject,
            "file": file,
            "values": each,
            "mean": round(fmean(each), 6),
            "deviation": round(stdev(each), 6) if len(each) > 1 else None,
        }
        for (name, subject, file), each in values.items()
    ]


def print_across_files(found: Sequence[Mapping[str, Any]]) -> None:
    """A table for each metric: a row for each subject, a column for each file."""
    files = list(dict.fromkeys(each["file"] for each in found))
    for metric in dict.fromkeys(each["metric"] for each in found):
        cells: dict[str, dict[str, str]] = {}
        for each in found:
            if each["metric"] == metric:
                spread = "" if each["deviation"] is None else f" ± {each['deviation']:.4f}"
                several = f" ({len(each['values'])})" if len(each["values"]) > 1 else ""
                cells.setdefault(each["subject"], {})[each["file"]] = f"{each['mean']:.4f}{spread}{several}"
        rows = ((subject, *(of_files.get(file) for file in files)) for subject, of_files in cells.items())
        print_table((metric, *(f"#{clean(file)}" for file in files)), rows)


def _without_version(subject: Mapping[str, Any]) -> str:
    name = str(subject["name"])
    return name.partition("@")[0] if subject["kind"] == "task" else name


def metrics_of(job: Evaluation) -> list[str]:
    """The names of the metrics, without the mean of them, which only tuning needs."""
    subjects = job.result.get("subjects") or []
    return list(dict.fromkeys(name for each in subjects for name in each["metrics"] if name != "mean"))


def _measures(subject: Mapping[str, Any], names: list[str]) -> tuple[object, ...]:
    values = (_figure(subject["metrics"].get(name)) for name in names)
    reliability = subject.get("reliability") or {}
    return subject["name"], *values, _figure(subject.get("legal")), _figure(reliability.get("ece"))


def _print_comparison(comparison: Mapping[str, Any], subjects: list[Any], names: list[str]) -> None:
    first, second = (subjects[comparison[place]]["name"] for place in ("first", "second"))
    click.echo(clean(f"{second} less {first}, {comparison['resamples']} paired resamples"))
    rows = []
    for name in names:
        found = comparison["metrics"][name]
        interval = f"{found['low']:+.4f} to {found['high']:+.4f}"
        rows.append((name, f"{found['difference']:+.4f}", interval, _figure(found["p_value"])))
    print_table(("metric", "#difference", "95 % interval", "#p"), rows)
    test = comparison["mcnemar"]
    click.echo(
        f"right only by the first: {test['only_first']}, only by the second: {test['only_second']} "
        f"(McNemar p {test['p_value']:.4f})\n"
    )


def _print_confusion(subject: Mapping[str, Any]) -> None:
    confusion = subject.get("confusion")
    if not confusion or len(confusion["labels"]) > MOST_SHOWN_LABELS:
        return
    labels, counts = confusion["labels"], confusion["counts"]
    others = any(row[-1] for row in counts)
    click.echo(clean(f"{subject['name']}: answers (rows) and what was said (columns)"))
    columns = ("", *(f"#{label}" for label in labels), *(("#none of them",) if others else ()))
    cells = ((label, *(row if others else row[:-1])) for label, row in zip(labels, counts, strict=True))
    print_table(columns, cells)


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
