"""What scoring label sets costs: two labels of a piece, 8 and 77 of Banking77's names, through the engine.

    python -m benchmarks.score_labels MODEL CATEGORIES --machine 2core-cpu --as after [--rounds 5]

Requests of 40 tokens are submitted to an engine without HTTP: one after another, then 32 at once. The label
sets take turns, round after round, so that whatever else the machine does falls on all alike. The script asks
the engine nothing that depends on how it scores, so it measures an older commit too: run it there with
`--as before`. A set that the engine refuses is kept with its message.
Writes benchmarks/results/DATE-MACHINE-score_labels.json; what was measured before stays in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import machine
from chorus_server.engine.config import EngineConfig
from chorus_server.engine.executor import build_executor
from chorus_server.engine.host_prompts import HostPromptTier
from chorus_server.engine.ladder import build_ladder
from chorus_server.engine.requests import Origin, ScoredEvent, ScoreRequest
from chorus_server.engine.thread.engine import Engine
from chorus_server.errors import ChorusError
from chorus_server.model.checkpoints import LoadedModel, load_model
from chorus_server.model.fused_attention import choose_attention
from chorus_server.model.vocabulary import Vocabulary

RESULTS = Path(__file__).parent / "results"
INPUT_TOKENS, TOGETHER = 40, 32
Targets = tuple[tuple[int, ...], ...]


class Prompts:
    """Where the engine fetches prompts: a dictionary."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def fetch(self, digest: str) -> Any:
        return self._values[digest]


def engine_of(folder: str, matrices: str, prompts: Mapping[str, Any]) -> tuple[Engine, LoadedModel]:
    """A started engine of few programs, for inputs of up to 128 tokens.

    Args:
        matrices: `f32` or `bf16`.
    """
    loaded = load_model(folder, matrix_dtype=jnp.bfloat16 if matrices == "bf16" else None)
    model = loaded.model.with_attention(choose_attention("auto", loaded.model.dtype)[0])
    config = EngineConfig(shed_unmeetable=False)
    host = HostPromptTier(config.host_prompt_bytes, config.compute_dtype)
    ladder = build_ladder((64, 128), (1, 8), ((128, 16, 8),))
    executor, _ = build_executor(model, ladder, 64, host)
    engine = Engine(executor, Prompts(prompts), config=config, detokenise=str, host_prompts=host)
    engine.start()
    return engine, loaded


def label_sets(vocabulary: Vocabulary, names: Sequence[str]) -> dict[str, Targets]:
    """Targets by the name of the set."""
    end = vocabulary.eos_id
    ids = [tuple(vocabulary.encode(name.replace("_", " "))) for name in sorted(names)]
    cut = dict.fromkeys(each[:7] for each in ids)
    return {
        "2 labels of one piece": ((ids[0][0], end), (ids[1][0], end)),
        "8 labels of Banking77": tuple((*each, end) for each in ids[:8]),
        f"{len(cut)} labels, cut to 7 pieces": tuple((*each, end) for each in cut),
        "77 labels of Banking77": tuple((*each, end) for each in ids),
        "77 labels as the data names them": tuple((*vocabulary.encode(n), end) for n in sorted(names)),
    }


def beginnings(targets: Targets) -> int:
    """How many different beginnings the targets have: what a decoder must read at least."""
    return len({target[:length] for target in targets for length in range(len(target))})


class Side:
    """One engine, and what it was measured to take for each set."""

    def __init__(self, engine: Engine, vocabulary_size: int) -> None:
        self.engine = engine
        self._random = np.random.default_rng(0)
        self._words = vocabulary_size
        self._number = count()
        self.one: dict[str, list[float]] = {}
        self.many: dict[str, list[float]] = {}
        self.refused: dict[str, str] = {}

    def run(self, name: str, targets: Targets) -> None:
        for together, found in ((1, self.one), (TOGETHER, self.many)):
            requests = [self._request(targets) for _ in range(together)]
            started = time.perf_counter()
            try:
                handles = [self.engine.submit(request) for request in requests]
            except ChorusError as error:
                self.refused[name] = error.message
                return
            for handle in handles:
                outcome = handle.wait()
                if not isinstance(outcome, ScoredEvent):
                    raise RuntimeError(f"{name}: {outcome}")
            found.setdefault(name, []).append(time.perf_counter() - started)

    def _request(self, targets: Targets) -> ScoreRequest:
        ids = self._random.integers(5, self._words, INPUT_TOKENS - 1).tolist()
        return ScoreRequest(Origin(f"request-{next(self._number)}"), ((*ids, 1),), targets)

    def result(self, name: str) -> dict[str, Any]:
        if name in self.refused:
            return {"refused": self.refused[name]}
        one, many = self.one[name][1:], self.many[name][1:]
        return {
            "milliseconds_alone": round(1e3 * statistics.median(one), 2),
            "milliseconds_alone_best": round(1e3 * min(one), 2),
            "requests_per_second": round(TOGETHER / statistics.median(many), 1),
            "requests_per_second_best": round(TOGETHER / min(many), 1),
        }


def measured(options: argparse.Namespace) -> dict[str, Any]:
    engine, loaded = engine_of(options.model, options.type, {})
    try:
        config = loaded.model.config
        side = Side(engine, config.vocab_size - config.extra_ids)
        sets = label_sets(loaded.vocabulary, json.loads(Path(options.categories).read_text()))
        until = time.monotonic() + options.seconds
        for _ in range(options.rounds + 1):
            for name, targets in sets.items():
                side.run(name, targets)
            if time.monotonic() > until and len(side.one["2 labels of one piece"]) > 2:
                break
    finally:
        engine.stop()
    return {
        name: {
            "labels": len(targets),
            "pieces": sum(map(len, targets)),
            "longest": max(map(len, targets)),
            "beginnings": beginnings(targets),
            **side.result(name),
        }
        for name, targets in sets.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("categories", help="a JSON list of label names: Banking77's categories.json")
    parser.add_argument("--machine", required=True)
    parser.add_argument("--as", dest="side", choices=["before", "after"], required=True)
    parser.add_argument("--type", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="begin no round after this long")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    path = options.results / f"{datetime.now(UTC).date().isoformat()}-{options.machine}-score_labels.json"
    result = json.loads(path.read_text()) if path.exists() else {"models": {}}
    result |= {"what": "score_labels", "jax": jax.__version__, "input_tokens": INPUT_TOKENS}
    of_model = result["models"].setdefault(f"{Path(options.model).resolve().name} {options.type}", {})
    of_model[options.side] = {"machine": machine(), "sets": measured(options)}
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(of_model[options.side], indent=1))


if __name__ == "__main__":
    main()
