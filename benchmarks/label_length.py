"""How summed log probabilities favour short labels, and what a prior takes back, on Banking77.

    python -m benchmarks.label_length MODEL DATA --machine 2core-cpu [--prompt FILE] [--rows 200]

Rows of the test file are ranked among all 77 names by the sum of the pieces' log probabilities; by that sum
less the label's own after an input that says nothing (the prior); and by the mean of a piece. Says how often
each is right, and how many tokens the chosen labels have beside the right ones.
Adds to benchmarks/results/DATE-MACHINE-score_labels.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.score_labels import RESULTS, engine_of
from chorus_server.engine.requests import Origin, PromptHandle, ScoredEvent, ScoreRequest
from prompts_store.artifacts import ArtifactLimits, read_artifact

NOTHING = ("", "N/A", "[MASK]")
"""Inputs that say nothing; the prior is the mean over them (Zhao et al. 2021, "Calibrate Before Use")."""


def rows_of(folder: Path, most: int) -> list[tuple[str, str]]:
    """(text, label) of rows drawn from the test file, labels as words."""
    with (folder / "test.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["text"], row["category"].replace("_", " ")) for row in csv.DictReader(file)]
    chosen = np.random.default_rng(0).permutation(len(rows))[:most]
    return [rows[index] for index in chosen]


def ranked(scores: Any, right: Any, tokens: Any) -> dict[str, float]:
    """Of [rows, labels] scores: how often the best is right, and the mean tokens of what is chosen."""
    best = scores.argmax(axis=1)
    return {
        "accuracy": round(float((best == right).mean()), 3),
        "tokens_of_chosen": round(float(tokens[best].mean()), 2),
        "different_labels_chosen": len(set(best.tolist())),
    }


def measured(options: argparse.Namespace) -> dict[str, Any]:
    values = (
        read_artifact(options.prompt, limits=ArtifactLimits(width=options.width, max_length=200)).values
        if options.prompt
        else None
    )
    engine, loaded = engine_of(options.model, options.type, {} if values is None else {"prompt": values})
    prompt = () if values is None else (PromptHandle("prompt", len(values)),)
    rows, vocabulary = rows_of(options.data, options.rows), loaded.vocabulary
    names = sorted(
        each.replace("_", " ") for each in json.loads((options.data / "categories.json").read_text())
    )
    targets = tuple((*vocabulary.encode(name), vocabulary.eos_id) for name in names)

    number = count()

    def ask(text: str) -> Any:
        ids = (*vocabulary.encode(options.template.replace("{text}", text))[:90], vocabulary.eos_id)
        return engine.submit(ScoreRequest(Origin(f"row-{next(number)}"), (*prompt, ids), targets))

    until = time.monotonic() + options.seconds
    try:
        handles = [ask(text) for text in NOTHING]
        empty = [outcome.log_probabilities for outcome in (h.wait() for h in handles)]  # type: ignore[union-attr]
        found: list[tuple[float, ...]] = []
        for at in range(0, len(rows), 16):
            for handle in [ask(text) for text, _ in rows[at : at + 16]]:
                outcome = handle.wait()
                if not isinstance(outcome, ScoredEvent):
                    raise RuntimeError(str(outcome))
                found.append(outcome.log_probabilities)
            if time.monotonic() > until:
                break
    finally:
        engine.stop()
    scores, prior = np.array(found), np.mean(empty, axis=0)
    right = np.array([names.index(label) for _, label in rows[: len(found)]])
    tokens = np.array([len(target) for target in targets])
    slope = float(np.polyfit(tokens, scores.mean(axis=0), 1)[0])
    return {
        "rows": len(found),
        "tokens_of_right": round(float(tokens[right].mean()), 2),
        "log_probability_of_one_more_token": round(slope, 2),
        "correlation_with_tokens": round(float(np.corrcoef(tokens, scores.mean(axis=0))[0, 1]), 2),
        "correlation_of_prior_with_tokens": round(float(np.corrcoef(tokens, prior)[0, 1]), 2),
        "sum": ranked(scores, right, tokens),
        "sum less prior": ranked(scores - prior, right, tokens),
        "mean of a piece": ranked(scores / tokens, right, tokens),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data", type=Path, help="a folder with Banking77's test.csv and categories.json")
    parser.add_argument("--machine", required=True)
    parser.add_argument("--prompt", type=Path)
    parser.add_argument("--width", type=int, default=256, help="of the prompt: the model's d_model")
    parser.add_argument("--template", default="{text}")
    parser.add_argument("--type", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600.0, help="ask no more rows after this long")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    path = options.results / f"{datetime.now(UTC).date().isoformat()}-{options.machine}-score_labels.json"
    result = json.loads(path.read_text()) if path.exists() else {"models": {}}
    name = Path(options.model).resolve().name + (f" with {options.prompt.stem}" if options.prompt else "")
    found = {"template": options.template, **measured(options)}
    result.setdefault("length", {})[f"{name} {options.type}"] = found
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
