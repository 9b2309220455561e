"""Quality of tuned prompts beside baselines: a list of runs, one after another, each kept when it is done.

    python -m benchmarks.tuning.quality                         every run of plan.json that is not done
    python -m benchmarks.tuning.quality --only sst2 trec        some runs, by the start of their names
    python -m benchmarks.tuning.quality --plan other.json

Needs the model and data sets of `$CHORUS_SHARED`. Killed at any moment and started again it goes on from the
last checkpoint. Parts lie in `build/quality/RUN/`; `benchmarks.tuning.merge` makes one result of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.tuning.base import Base
from benchmarks.tuning.baselines import run_baseline
from benchmarks.tuning.interpret import run_interpret
from benchmarks.tuning.model_tuning import run_model
from benchmarks.tuning.prompts import run_prompts
from benchmarks.tuning.results import MODEL, PARTS, load, save
from benchmarks.tuning.transfer import run_transfer

Run = Callable[[Base, dict[str, Any], Callable[[str], None]], dict[str, Any]]
KINDS: dict[str, Run] = {
    "prompts": run_prompts,
    "zero_shot": run_baseline,
    "calibrated": run_baseline,
    "few_shot": run_baseline,
    "majority": run_baseline,
    "ranked": run_baseline,
    "model": run_model,
    "transfer": run_transfer,
    "interpret": run_interpret,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plan", type=Path, default=Path(__file__).parent / "plan.json")
    parser.add_argument("--only", nargs="*", default=[""])
    options = parser.parse_args()
    base = None
    while (run := next_run(options.plan, options.only)) is not None:
        base = base or Base.load(MODEL)
        say(f"{run['name']} ({run['kind']})")
        started = time.perf_counter()
        document = KINDS[run["kind"]](base, run, say)
        save(PARTS / run["name"], "result.json", {"run": run, "machine": machine(), **document})
        say(f"{run['name']} done in {time.perf_counter() - started:.0f} s: {document['report']}")


def next_run(plan: Path, only: list[str]) -> dict[str, Any] | None:
    """The first run that is not done. The plan is read anew each time, so that it may grow meanwhile."""
    for run in json.loads(plan.read_text())["runs"]:
        if load(run["name"]) is None and any(run["name"].startswith(start) for start in only):
            return dict(run)
    return None


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    main()
