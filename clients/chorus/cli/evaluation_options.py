"""What the words and options of `chorus evaluate` ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from chorus.cli.tune_options import document_of, pairs

ENSEMBLE = "ensemble:"
PACK = "pack:"
BASE = "base"
FEW_SHOT, CALIBRATED = f"{BASE}:few-shot", f"{BASE}:calibrated"
MAJORITY = "majority"


def name_of(subject: dict[str, Any]) -> str:
    """What people call a subject."""
    if "pack" in subject:
        return f"{subject['pack']}:{subject.get('question')}"
    return str(subject.get("task") or subject.get("ensemble") or (BASE if BASE in subject else MAJORITY))


def subject_of(name: str, base: dict[str, Any], few_shot_apart: bool = False) -> dict[str, Any]:
    """A subject of the document.

    Args:
        base: what is asked of the base model.
        few_shot_apart: whether `base:few-shot` is named too, so that the others are shown no rows.
    """
    if name == MAJORITY:
        return {MAJORITY: True}
    if name in (BASE, CALIBRATED, FEW_SHOT):
        given = dict(base)
        if few_shot_apart and name != FEW_SHOT:
            given.pop("few_shot", None)
        return {BASE: given | ({"calibrated": True} if name == CALIBRATED else {})}
    if name.startswith(ENSEMBLE):
        return {"ensemble": name.removeprefix(ENSEMBLE)}
    if name.startswith(PACK):
        pack, _, question = name.removeprefix(PACK).partition(":")
        if not question:
            raise click.UsageError(f"{name} names no question of the pack: pack:NAME:QUESTION")
        return {"pack": pack, "question": question}
    return {"task": name}


def base_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a document asks of the base model; the references say whether it is calibrated."""
    subjects = document.get("subjects")
    for each in subjects if isinstance(subjects, list) else ():
        if isinstance(each, dict) and isinstance(each.get(BASE), dict):
            return {name: value for name, value in each[BASE].items() if name != "calibrated"}
    return {}


def arguments_of(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `client.evaluations.start` that were given."""
    path = given.pop("document")
    document = document_of(path) if path is not None else {}
    if (format_ := given.pop("format")) is not None:
        document["format"] = format_
    if metric_columns := pairs(given.pop("metric_columns"), "--metric-column"):
        document["metric_columns"] = metric_columns
    found: dict[str, Any] = {
        "labels": list(given.pop("labels")),
        "metrics": list(given.pop("metrics")),
        "columns": pairs(given.pop("columns"), "--column"),
        "target_texts": pairs(given.pop("target_texts"), "--target-text"),
        "document": document,
    }
    return {name: value for name, value in {**found, **given}.items() if value not in (None, [], {})}
