"""The model card: what a base model is, from what and how it was made, what it cannot do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chorus_server.model.checkpoints.documents import read_json, write_json
from chorus_server.model.config import T5Config
from chorus_server.model.parameters import parameter_count

LIMITS = (
    "A model of this size knows little and states falsehoods; use it to tune prompts.",
    "It has read the text named above and nothing else; other languages and domains are unknown to it.",
    "It repeats the views and the prejudices of its text. Nothing was filtered.",
)
CURVE_POINTS = 40


def make_card(
    *,
    name: str,
    config: T5Config,
    fingerprint: str,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    licence: str,
    steps: int,
    tokens: int,
    seconds: float,
    curve: Sequence[Mapping[str, Any]],
    machine: Mapping[str, Any],
    base: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The card as plain data.

    Args:
        facts: facts about the data; see `sources.RowSource.facts`.
        licence: licence of the data, in the user's words.
        base: card of the model that this one continues, or what is known about it.
    """
    held_out = [line for line in curve if line["split"] == "held_out"]
    return {
        "name": name,
        "fingerprint": fingerprint,
        "parameters": parameter_count(config),
        "architecture": {k: v for k, v in dataclasses.asdict(config).items() if k != "name"},
        "data": {**facts, "licence": licence or "not stated"},
        "training": {
            "steps": steps, "tokens": tokens, "seconds": round(seconds, 1), "settings": dict(settings),
            "machine": dict(machine),
        },
        "held_out": held_out[-1] if held_out else None,
        "curve": _thinned([line for line in curve if line["split"] == "train"]),
        "limits": list(LIMITS),
        "base": dict(base) if base is not None else None,
    }  # fmt: skip


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write `card.json` for programs and `CARD.md` for people."""
    write_json(folder / "card.json", card)
    (folder / "CARD.md").write_text(as_text(card), encoding="utf-8")


def card_beside(model: str | Path) -> dict[str, Any] | None:
    """The card of a checkpoint: `card.json` in its folder or in the one above; None if there is none."""
    folder = Path(model)
    for place in (folder, folder.parent):
        if folder.is_dir() and (place / "card.json").is_file():
            return read_json(place / "card.json")
    return None


def as_text(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    training, held_out = card["training"], card["held_out"]
    settings = training["settings"]
    lines = [
        f"# {card['name']}",
        "",
        f"A T5 1.1 of {card['parameters'] / 1e6:.1f} million parameters, trained with the objective "
        f"`{settings['objective']}` for {training['steps']:,} steps: "
        f"{training['tokens']:,} tokens, {training['seconds'] / 3600:.2f} hours, "
        f"seed {settings['seed']}.",
        "",
        f"Fingerprint `{card['fingerprint']}`.",
        "",
    ]
    if held_out:
        lines += [
            f"Held-out loss {held_out['loss']:.4f} a token, accuracy {held_out['accuracy']:.3f}, at step "
            f"{held_out['step']:,}.",
            "",
        ]
    lines += ["## Data", "", *_data_lines(card["data"]), ""]
    lines += ["## Architecture", "", _json(card["architecture"]), "", "## Settings", "", _json(settings), ""]
    lines += ["## Machine", "", _json(training["machine"]), ""]
    lines += ["## Loss", "", "| step | tokens | loss | accuracy |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {line['step']:,} | {line['tokens']:,} | {line['loss']:.4f} | {line['accuracy']:.3f} |"
        for line in card["curve"]
    ]
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in card["limits"]), ""]
    if card["base"]:
        lines += ["## Continued from", "", *_base_lines(card["base"]), ""]
    return "\n".join(lines)


def _data_lines(data: Mapping[str, Any]) -> list[str]:
    lines = [f"Licence: {data['licence']}.", ""]
    for file in data.get("corpus", []):
        lines.append(f"- `{file['name']}`, {file['bytes']:,} bytes, SHA-256 `{file['sha256']}`")
    if "train" in data:
        lines.append(
            f"- {data['train']['tokens']:,} tokens to train on, {data['held_out']['tokens']:,} held out"
        )
    for task, count in data.get("tasks", {}).items():
        lines.append(f"- task `{task}`: {count:,} examples")
    if data.get("left_out"):
        lines.append(f"- left out of training: {', '.join(data['left_out'])}")
    return lines


def _base_lines(base: Mapping[str, Any]) -> list[str]:
    lines = [f"`{base.get('name')}`, fingerprint `{base.get('fingerprint')}`."]
    if "training" in base:
        settings, training = base["training"]["settings"], base["training"]
        lines.append(
            f"It was trained with `{settings['objective']}` for {training['steps']:,} steps "
            f"({training['tokens']:,} tokens)."
        )
        lines += ["", *_data_lines(base["data"])]
    if base.get("base"):
        lines += ["", "Before that:", "", *_base_lines(base["base"])]
    return lines


def _json(document: Mapping[str, Any]) -> str:
    return "```json\n" + json.dumps(document, indent=1) + "\n```"


def _thinned(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """At most `CURVE_POINTS` lines, including the first and the last."""
    if len(lines) <= CURVE_POINTS:
        return [dict(line) for line in lines]
    step = (len(lines) - 1) / (CURVE_POINTS - 1)
    return [dict(lines[round(n * step)]) for n in range(CURVE_POINTS)]
