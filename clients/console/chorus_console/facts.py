"""What is known of versions of tasks, ensembles and packs, fact by fact, beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chorus.types import Ensemble, Pack, Version
from chorus_console.pages import brief, moment, plain, size

Row = tuple[str, list[str], bool]
"""A fact's name, its value in each version, and whether these differ."""


def beside(documents: Sequence[Mapping[str, object]]) -> list[Row]:
    """The facts of each document; what one of them lacks is a dash."""
    rows = []
    for name in dict.fromkeys(name for document in documents for name in document):
        values = [plain(document[name]) if name in document else "–" for document in documents]
        rows.append((name, values, len(set(values)) > 1))
    return rows


def of_task(version: Version) -> dict[str, object]:
    """In the order in which people ask for them; what stands in a recipe is a fact of its own."""
    lineage = dict(version.lineage)
    recipe = lineage.pop("recipe", {})
    found: dict[str, object] = {f"metric: {name}": value for name, value in sorted(version.metrics.items())}
    found |= {"template": version.template, "labels": ", ".join(version.labels) or None}
    found["prompt"] = f"{version.length} row{'s' if version.length != 1 else ''} of {version.width}"
    found["size"] = size(4 * version.length * version.width)
    found |= {f"setting: {name}": value for name, value in sorted(version.settings.items())}
    if isinstance(recipe, dict):
        found |= {f"recipe: {name}": value for name, value in sorted(recipe.items())}
    else:
        lineage["recipe"] = recipe
    found |= {f"lineage: {name}": value for name, value in sorted(lineage.items())}
    found |= {"calibration": version.calibration, "values' digest": version.digest[:16]}
    return found | {"made": moment(version.created_at), "made by": version.created_by or None}


def of_ensemble(version: Ensemble) -> dict[str, object]:
    """Who votes, and with which weight."""
    votes = {
        f"{member.task}@{member.version}": "votes" if member.weight == 1 else f"votes × {member.weight:g}"
        for member in version.members
    }
    return {
        "vote": version.vote,
        "members": len(version.members),
        **votes,
        "made": moment(version.created_at),
    }


def of_pack(version: Pack) -> dict[str, object]:
    """What answers each question."""
    answers = {
        f"question: {name}": " ".join((f"{each.task}@{each.version}", brief(each.values))).strip()
        for name, each in version.questions.items()
    }
    return {"other questions": version.unknown_questions, **answers, "made": moment(version.created_at)}
