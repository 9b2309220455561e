"""The result of an evaluation as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        print_confusion(each["name"], each.get("confusion"))
    click.echo(clean(f"predictions: {result.get('predictions')}"))


@dataclass(frozen=True, slots=True)
class EvaluatedFile:
    """The file of an evaluation.

    Attributes:
        content: what the same rows have in common, however often they were uploaded: their digest; the
            file's id, if it is no longer there.
        name: what people call it.
        place: what tells it from another file of that name: its path, or the name with the id.
    """

    content: str
    name: str
    place: str


def across_files(
    jobs: Sequence[tuple[EvaluatedFile, Evaluation]], metric: str | None
) -> list[dict[str, Any]]:
    """Each metric of each subject on each file: `metric`, `subject`, `file`, `values`, their `mean` and their
    standard deviation (n - 1; none of a single one). Versions of one task are one subject, and each counts
    once.

    Args:
        jobs: evaluations that succeeded, each with its file.
        metric: the only one to take.

    Raises:
        UsageError: one version has two different figures on one file.
    """
    names = _told_apart([file for file, _ in jobs])
    values: dict[tuple[str, str, str], dict[str, tuple[float, str]]] = {}
    for file, job in jobs:
        for name in metrics_of(job):
            for each in job.result.get("subjects") or []:
                if metric not in (None, name) or name not in each["metrics"]:
                    continue
                key = (name, _without_version(each), names[file.content])
                found = float(each["metrics"][name])
                known, where = values.setdefault(key, {}).setdefault(str(each["name"]), (found, job.id))
                if known != found:
                    raise click.UsageError(
                        clean(
                            f"{each['name']} has two figures of {name} on {names[file.content]}: {known} in "
                            f"{where} and {found} in {job.id}. Name one of these evaluations."
                        )
                    )
    return [_cell(key, [value for value, _ in each.values()]) for key, each in values.items()]


def _cell(key: tuple[str, str, str], values: list[float]) -> dict[str, Any]:
    name, subject, file = key
    return {
        "metric": name,
        "subject": subject,
        "file": file,
        "values": values,
        "mean": round(fmean(values), 6),
        "deviation": round(stdev(values), 6) if len(values) > 1 else None,
    }


def _told_apart(files: Sequence[EvaluatedFile]) -> dict[str, str]:
    """What the column of each content is called: the file's name, if no other content has it."""
    first: dict[str, EvaluatedFile] = {}
    for file in files:
        first.setdefault(file.content, file)
    names = Counter(file.name for file in first.values())
    return {content: file.place if names[file.name] > 1 else file.name for content, file in first.items()}


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


def print_confusion(name: str, confusion: Mapping[str, Any] | None) -> None:
    """Print how often which label was said for which, if there are not too many."""
    if not confusion or len(confusion["labels"]) > MOST_SHOWN_LABELS:
        return
    labels, counts = confusion["labels"], confusion["counts"]
    others = any(row[-1] for row in counts)
    click.echo(clean(f"{name}: answers (rows) and what was said (columns)"))
    columns = ("", *(f"#{label}" for label in labels), *(("#none of them",) if others else ()))
    cells = ((label, *(row if others else row[:-1])) for label, row in zip(labels, counts, strict=True))
    print_table(columns, cells)


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
