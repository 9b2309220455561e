"""The result of `run.py` as a picture beside it: requests a second of every contender, by load.

python benchmarks/peers/picture.py benchmarks/results/DATE-MACHINE-peers.json
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from charts import Bars

NAMES = {
    "chorus": "Chorus",
    "chorus_bf16": "Chorus, bf16 matrices",
    "peft": "PEFT, a task at a time",
    "hf_mixed": "Hugging Face, mixed",
    "one_at_a_time": "one at a time",
    "ctranslate2_f32": "CTranslate2 f32",
    "ctranslate2_int8": "CTranslate2 int8",
}


def draw(result: Path) -> Path:
    """Writes the picture and returns its path."""
    content: dict[str, Any] = json.loads(result.read_text())
    machine = content["machine"]
    groups = {name: _rates(load) for name, load in content["loads"].items()}
    title = f"{machine['cores']} cores, {content['date']}: labels of 4 tokens, texts of 8 to 128"
    target = result.with_suffix(".svg")
    target.write_text(Bars(title, "requests a second, medians of interleaved rounds", groups).svg())
    return target


def _rates(load: dict[str, Any]) -> dict[str, float | None]:
    count, turns = load["load"]["requests"], load["turns"]
    return {
        label: count / statistics.median(turn["seconds"] for turn in turns[name]) if name in turns else None
        for name, label in NAMES.items()
    }


if __name__ == "__main__":
    sys.stdout.write(f"{draw(Path(sys.argv[1]))}\n")
