"""Earlier names of the splits: `validation` was `selection`, and `test` was `report`.

Both are read, in what is sent and in what earlier versions stored. Answers have the new names only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SPLITS = {"selection": "validation", "report": "test"}
DATA_FIELDS = {**_SPLITS, "selection_rows": "validation_rows", "selection_from": "validation_from"}
"""New name of a field of a job document's `data`, by its earlier one."""


def split_name(name: Any) -> Any:
    """The new name of a split; anything else unchanged."""
    return _SPLITS.get(name, name) if isinstance(name, str) else name


def renamed_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A stored job document."""
    prompts = [
        {**prompt, "data": _renamed_data(prompt.get("data", {}))} for prompt in spec.get("prompts", ())
    ]
    return {**spec, **({"prompts": prompts} if prompts else {})}


def renamed_progress(progress: Mapping[str, Any]) -> dict[str, Any]:
    """Where a job stands, with each prompt's last metrics."""
    found = {place: renamed_facts(facts) for place, facts in progress.get("metrics", {}).items()}
    return {**progress, **({"metrics": found} if found else {})}


def renamed_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """What came of a job."""
    prompts = [renamed_facts(prompt) for prompt in result.get("prompts", ())]
    return {**result, **({"prompts": prompts} if prompts else {})}


def renamed_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What an event tells, or a result of one prompt: `split` and `metrics`, where it has them."""
    found = dict(facts)
    if "split" in found:
        found["split"] = split_name(found["split"])
    if "metrics" in found:
        found["metrics"] = _renamed_metrics(found["metrics"])
    return found


def renamed_version(
    lineage: Mapping[str, Any], metrics: Mapping[str, float]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Lineage and metrics of a version. Those that a tuning job did not make are the uploader's own."""
    if lineage.get("source") != "tuning":
        return dict(lineage), dict(metrics)
    found = dict(lineage)
    if "chosen_on" in found:
        found["chosen_on"] = split_name(found["chosen_on"])
    if isinstance(found.get("data"), Mapping):
        found["data"] = {split_name(name): _renamed_origin(facts) for name, facts in found["data"].items()}
    if isinstance(found.get("evaluations"), list):
        found["evaluations"] = [
            renamed_facts(each) if isinstance(each, Mapping) else each for each in found["evaluations"]
        ]
    return found, _renamed_metrics(metrics)


def _renamed_data(data: Mapping[str, Any]) -> dict[str, Any]:
    found = {DATA_FIELDS.get(name, name): value for name, value in data.items()}
    if "validation_from" in found:
        found["validation_from"] = split_name(found["validation_from"])
    return found


def _renamed_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """`selection_accuracy` becomes `validation_accuracy`."""
    found = {}
    for name, value in metrics.items():
        split, line, metric = name.partition("_")
        found[f"{split_name(split)}{line}{metric}"] = value
    return found


def _renamed_origin(facts: Any) -> Any:
    """The facts of one split in a lineage: `from` is the split that it was cut from."""
    if isinstance(facts, Mapping) and "from" in facts:
        return {**facts, "from": split_name(facts["from"])}
    return facts
