"""Goes on where another checkout stopped: lays the runs of a kept result back into `build/quality`.

python -m benchmarks.tuning.restore benchmarks/results/DATE-MACHINE-quality.json

What `quality.py` then finds done it does not do again, and `merge.py` keeps it. Tuned prompts come back where
`benchmarks/results/quality_prompts/` has them; a run that needs others (`transfer`, `interpret`) says which.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.tuning.results import PARTS, ROOT, save

PROMPTS = ROOT / "benchmarks" / "results" / "quality_prompts"


def restore(document: dict[str, Any], parts: Path = PARTS, prompts: Path = PROMPTS) -> list[str]:
    """Write each run that is not there; its name is in the answer. Runs that are there stay as they are."""
    restored = []
    for name, run in document["runs"].items():
        folder = parts / name
        if (folder / "result.json").exists():
            continue
        save(folder, "result.json", {"machine": document["machine"], **run})
        if (kept := prompts / f"{name}.safetensors").exists():
            shutil.copyfile(kept, folder / "prompts.safetensors")
        restored.append(name)
    return restored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("result", type=Path)
    options = parser.parse_args()
    restored = restore(json.loads(options.result.read_text()))
    print(f"{len(restored)} runs restored: {', '.join(restored) or 'none was missing'}")


if __name__ == "__main__":
    main()
