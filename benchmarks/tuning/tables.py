"""The merged result as the tables of docs/quality.md."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]
NAMES = {
    "majority": "majority",
    "zero_shot": "zero-shot",
    "calibrated": "zero-shot, calibrated",
    "few_shot": "few-shot",
    "model": "model tuning",
}


def tables(document: Document) -> str:
    """Quality, differences, ensembles, domain shift, ablations, neighbours."""
    parts = [
        _quality(document), _differences(document), _ensembles(document), _shift(document),
        _ablations(document), _neighbours(document), _curves(document),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def _quality(document: Document) -> str:
    lines = _head("task", "rows", "prompts, mean ± sd (seeds)", *NAMES.values())
    for task, each in document["tasks"].items():
        accuracy = each["accuracy"]
        spread = f" ± {100 * accuracy['deviation']:.1f}" if accuracy["deviation"] is not None else ""
        beside = [_percent(each["beside"].get(name, {}).get("accuracy")) for name in NAMES]
        ours = f"**{100 * accuracy['mean']:.1f}**{spread} ({each['seeds']})"
        lines.append(f"| {task} | {each['rows']} | {ours} | {' | '.join(beside)} |")
    return "\n".join(lines)


def _differences(document: Document) -> str:
    lines = _head("task", *(f"over {name}" for name in NAMES.values()))
    for task, each in document["tasks"].items():
        cells = [_interval(each["beside"].get(name)) for name in NAMES]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ensembles(document: Document) -> str:
    lines = [
        "| task | members' mean | members' best | ensemble | over mean | over best |",
        "|" + " --- |" * 6,
    ]
    for task, each in document["tasks"].items():
        if "ensemble" not in each:
            continue
        vote, members = each["ensemble"], each["accuracy"]
        over = f"{_interval(vote['over_mean'])} | {_interval(vote['over_best'])}"
        alone = f"{_percent(members['mean'])} | {_percent(max(members['each']))}"
        lines.append(f"| {task} ({each['seeds']}) | {alone} | **{_percent(vote['accuracy'])}** | {over} |")
    return "\n".join(lines)


def _shift(document: Document) -> str:
    if not document["shift"]:
        return ""
    lines = [
        "| tuned on | measured on | rows | prompts (each) | model tuning | difference |",
        "|" + " --- |" * 6,
    ]
    for line in document["shift"]:
        each = " ".join(_percent(value) for value in line["prompts"]["each"])
        ours = f"**{_percent(line['prompts']['mean'])}** ({each})"
        lines.append(
            f"| {line['tuned_on']} | {line['measured_on']} | {line['rows']} | {ours} | "
            f"{_percent(line.get('model'))} | {_interval(line.get('difference'))} |"
        )
    return "\n".join(lines)


def _ablations(document: Document) -> str:
    lines = _head("run", "prompt length", "initialiser", "learning rate", "each", "mean")
    for name, run in document["runs"].items():
        if run["run"]["kind"] != "prompts" or name.removesuffix("-prompts") in document["tasks"]:
            continue
        seen: dict[tuple[str, ...], list[float]] = {}
        plan = run["run"]
        wanted = plan.get("recipes") or [plan["recipe"]] * plan["seeds"]
        for recipe, report in zip(wanted, run["report"], strict=True):
            shown = (
                str(recipe.get("prompt_length", 20)),
                recipe.get("initialiser", "class_labels"),
                str(recipe["learning_rate"]),
            )
            seen.setdefault(shown, []).append(report["accuracy"])
        for shown, each in seen.items():
            values = " ".join(_percent(value) for value in each)
            lines.append(f"| {name} | {' | '.join(shown)} | {values} | {_percent(sum(each) / len(each))} |")
    return "\n".join(lines)


def _neighbours(document: Document) -> str:
    lines = _head(
        "run", "labels found before", "after", "different nearest", "nearest cosine before", "after"
    )
    for run in document["runs"].values():
        if run["run"]["kind"] != "interpret":
            continue
        for name, each in run["prompts"].items():
            before, after = each["before"], each["tuned"]
            labels = after[0]["labels"]
            lines.append(
                f"| {name} | {_mean(before, 'labels_found'):.1f} / {labels} | "
                f"{_mean(after, 'labels_found'):.1f} / {labels} | "
                f"{_mean(after, 'different_nearest'):.1f} / {after[0]['rows']} | "
                f"{_mean(before, 'nearest_cosine_mean'):.2f} | {_mean(after, 'nearest_cosine_mean'):.2f} |"
            )
        random = run["random_vectors"]["nearest_cosine_mean"]
        lines.append(f"| random vectors | | | | | {random:.2f} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _curves(document: Document) -> str:
    """How far the selection metric still rose in the last third of each run."""
    lines = [
        "| task | steps | chosen at | selection at a third | two thirds | end | CPU s |",
        "|" + " --- |" * 7,
    ]
    for task in document["tasks"]:
        run = document["runs"][f"{task}-prompts"]
        steps = run["selection"][0][-1][0]
        at = [_selection(run, steps * third // 3) for third in (1, 2, 3)]
        chosen = ", ".join(str(step) for step in run["chosen_step"])
        cells = " | ".join(_percent(value) for value in at)
        lines.append(f"| {task} | {steps} | {chosen} | {cells} | {run['cpu_seconds']:.0f} |")
    return "\n".join(lines)


def _selection(run: Document, step: int) -> float:
    """Mean over seeds of the last evaluation up to a step."""
    found = [[value for at, value in seed if at <= step] or [seed[0][1]] for seed in run["selection"]]
    return float(sum(values[-1] for values in found) / len(found))


def _head(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]


def _mean(described: list[Document], name: str) -> float:
    return float(sum(each[name] for each in described) / len(described))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _interval(found: Document | None) -> str:
    if not found:
        return ""
    star = "**" if found["low"] > 0 else ""
    low, high = 100 * found["low"], 100 * found["high"]
    return f"{star}{100 * found['difference']:+.1f}{star} [{low:+.1f}, {high:+.1f}]"
