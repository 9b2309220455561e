"""The result of `run.py` as pictures beside it, one a load: requests a second of every contender.

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
    "chorus": "Chorus f32",
    "chorus_bf16": "Chorus, bf16 matrices",
    "hf_mixed": "Hugging Face f32",
    "hf_mixed_bf16": "Hugging Face bf16",
    "hf_mixed_bf16_compiled": "HF bf16, compiled",
    "peft": "PEFT f32",
    "peft_bf16": "PEFT bf16",
    "one_at_a_time": "one at a time",
    "ctranslate2_f32": "CTranslate2 f32",
    "ctranslate2_bf16": "CTranslate2 bf16",
    "ctranslate2_int8": "CTranslate2 int8",
    "ctranslate2_int8_bf16": "CTranslate2 int8, bf16",
}


def draw(result: Path) -> list[Path]:
    """Writes the pictures and returns their paths."""
    content: dict[str, Any] = json.loads(result.read_text())
    targets = []
    for name, load in content["loads"].items():
        groups: dict[str, dict[str, float | None]] = {
            NAMES[contender]: {"Chorus" if contender.startswith("chorus") else "peers": rate}
            for contender, rate in rates(load).items()
        }
        title = f"{name}, {content['machine']['cores']} cores, {content['date']}"
        targets.append(result.with_name(f"{result.stem}-{name}.svg"))
        targets[-1].write_text(Bars(title, "requests a second, medians of interleaved rounds", groups).svg())
    return targets


def rates(load: dict[str, Any]) -> dict[str, float]:
    """Requests a second by contender: medians over every round."""
    count, turns = load["load"]["requests"], load["turns"]
    return {
        name: count / statistics.median(turn["seconds"] for turn in turns[name])
        for name in NAMES
        if turns.get(name)
    }


if __name__ == "__main__":
    for picture in draw(Path(sys.argv[1])):
        sys.stdout.write(f"{picture}\n")
