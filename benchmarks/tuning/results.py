"""What a run leaves: one JSON a run, in a folder that git ignores, until `merge.py` puts them together."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("CHORUS_SHARED", ROOT.parent / "shared"))
DATA = SHARED / "data"
MODEL = SHARED / "models" / "flan-t5-small-title"
PARTS = ROOT / "build" / "quality"
"""One folder a run: checkpoint, prompts, `result.json`."""

LETTERS = string.digits + string.ascii_letters + "!#$%&()*+,-./:;<=>@[]^_{|}~"


def written(places: Sequence[int]) -> str:
    """Predictions of a split, a character an example: the place of the label, `?` for no label."""
    return "".join("?" if place < 0 else LETTERS[place] for place in places)


def read(text: str) -> list[int]:
    """The inverse of `written`."""
    return [-1 if letter == "?" else LETTERS.index(letter) for letter in text]


def save(folder: Path, name: str, document: dict[str, Any]) -> None:
    """Whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.partial"
    temporary.write_text(json.dumps(document, allow_nan=False))
    temporary.replace(folder / name)


def load(run: str, name: str = "result.json") -> dict[str, Any] | None:
    """A finished run's document, or None."""
    path = PARTS / run / name
    return json.loads(path.read_text()) if path.exists() else None
