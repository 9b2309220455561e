"""Training steps a second: Chorus beside PEFT prompt tuning in torch, interleaved rounds, medians, JSON.

    python benchmarks/training/run.py                     every setting, both in bf16
    python benchmarks/training/run.py --contenders chorus peft
    python benchmarks/training/run.py --peers-python PY   an environment made before

Same model, data, batch, dropout and cores; a round is a turn of each, the first is a warm-up. Lengths are
padded alike, or each does its best: Chorus lays the rows end to end, PEFT gets batches grouped by length.
Chorus keeps the memory that it frees, as its server does; `peft_bf16_kept` has the C library do the same.
Ratios are medians over rounds of (their seconds / our seconds): above 1, Chorus is faster. A run keeps what
the result file has of other settings and contenders.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
import numpy as np
from contenders import SHARED, Worker, peers_environment, real_or_random_model
from machine import machine, versions
from workload import texts

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SETTINGS: dict[str, dict[str, Any]] = {
    # 100 prompt rows and 64 positions of text: the shape of the paper's prompts on short sentences.
    "164_positions": {"prompt_length": 100, "padded": 64, "micro_batch": 32, "dropout": 0.1},
    # The same prompt on sentences of any length: no padding but what each cannot leave out.
    "100_rows_any_length": {"prompt_length": 100, "padded": None, "micro_batch": 32, "dropout": 0.1},
    "20_rows_any_length": {"prompt_length": 20, "padded": None, "micro_batch": 32, "dropout": 0.1},
    "164_positions_no_dropout": {"prompt_length": 100, "padded": 64, "micro_batch": 32, "dropout": 0.0},
    # As a job runs inside a server: dispatches short enough for requests to go between.
    "164_positions_micro_batch_8": {"prompt_length": 100, "padded": 64, "micro_batch": 8, "dropout": 0.1},
    "100_rows_any_length_micro_batch_8": {
        "prompt_length": 100,
        "padded": None,
        "micro_batch": 8,
        "dropout": 0.1,
    },
    "164_positions_micro_batch_2": {"prompt_length": 100, "padded": 64, "micro_batch": 2, "dropout": 0.1},
    "48_positions": {"prompt_length": 20, "padded": 28, "micro_batch": 32, "dropout": 0.1},
}
LONGEST = 64
"""Positions of text where lengths are not padded alike."""
CONTENDERS = {
    "chorus": ("chorus_worker.py", "f32"),
    "chorus_bf16": ("chorus_worker.py", "bf16"),
    "peft": ("peft_worker.py", "f32"),
    "peft_bf16": ("peft_worker.py", "bf16"),
    "peft_bf16_compiled": ("peft_worker.py", "bf16_compiled"),
    "peft_bf16_kept": ("peft_worker.py", "bf16"),
}
KEEPING = (
    "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=536870912:glibc.malloc.trim_threshold=1073741824"
)
"""What `chorus_server.kept_memory` does for Chorus, for torch (`peft_bf16_kept`)."""


def main() -> None:
    arguments = _arguments()
    python = arguments.peers_python or peers_environment()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        model = real_or_random_model(scratch)
        workers = {}
        for name in arguments.contenders:
            script, precision = CONTENDERS[name]
            runs = sys.executable if script == "chorus_worker.py" else python
            keeping = ["env", f"GLIBC_TUNABLES={KEEPING}"] if name.endswith("_kept") else []
            command = [*keeping, runs, HERE / script, model, precision]
            workers[name] = Worker(command, scratch / f"{name}.log")
        for setting in arguments.settings:
            folder = scratch / setting
            _write_work(folder, SETTINGS[setting], model, arguments.batch, arguments.steps)
            results[setting] = _measure(setting, folder, workers, arguments.rounds)
            _save(results, python, arguments)
        for worker in workers.values():
            worker.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument(
        "--contenders", nargs="+", default=["chorus_bf16", "peft_bf16"], choices=list(CONTENDERS)
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default 5)")
    parser.add_argument("--steps", type=int, default=3, help="optimiser steps a turn (default 3)")
    parser.add_argument("--batch", type=int, default=32, help="examples a step (default 32)")
    parser.add_argument("--peers-python", type=Path, help="Python of an environment with the peers")
    parser.add_argument("--out", type=Path, help="result file (default: results/DATE-MACHINE-training.json)")
    return parser.parse_args()


def _write_work(folder: Path, setting: dict[str, Any], model: Path, batch: int, steps: int) -> None:
    """`work.json` and `prompt.npy` [P, D]: what both train on."""
    from chorus_server.model.vocabulary import Vocabulary

    generator = np.random.default_rng(0)
    if (model / "spiece.model").exists() and (SHARED / "data").exists():
        vocabulary = Vocabulary.load(model / "spiece.model")
        rows = [vocabulary.encode(text) for text in texts(SHARED)[:512]]
        labels = [[*vocabulary.encode(label), 1] for label in ("positive", "negative")]
    else:
        rows = [generator.integers(100, 30_000, generator.integers(8, 200)).tolist() for _ in range(512)]
        labels = [[1465, 1], [2841, 1]]
    inputs = [[*ids[: (setting["padded"] or LONGEST) - 1], 1] for ids in rows]
    targets = [labels[n] for n in generator.integers(0, 2, len(inputs))]
    width = json.loads((model / "config.json").read_text())["d_model"]
    work = {
        **setting,
        "batch": batch,
        "steps": steps,
        "inputs": inputs,
        "targets": targets,
        "target_length": max(len(target) for target in targets),
    }
    folder.mkdir()
    (folder / "work.json").write_text(json.dumps(work))
    np.save(
        folder / "prompt.npy", generator.normal(0, 5, (setting["prompt_length"], width)).astype(np.float32)
    )


def _measure(setting: str, folder: Path, workers: dict[str, Worker], rounds: int) -> dict[str, Any]:
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for number in range(rounds + 1):
        for name, worker in workers.items():
            answer = worker.run("run", folder)
            each = answer["seconds"] / answer["steps"]
            what = "warm-up" if number == 0 else f"round {number}"
            sys.stderr.write(f"{setting} {what} {name}: {each:.2f} s a step, loss {answer['loss']:.3f}\n")
            if number:
                turns[name].append(answer)
    found: dict[str, Any] = {"setting": SETTINGS[setting]}
    for before, clock in (("", "seconds"), ("processor_", "processor_seconds")):
        ratios = {
            f"{ours} over {theirs}": [
                their[clock] / our[clock] for our, their in zip(turns[ours], turns[theirs], strict=True)
            ]
            for ours in turns
            for theirs in turns
            if ours.startswith("chorus") and theirs.startswith("peft")
        }
        found[f"{clock}_a_step"] = {
            name: round(statistics.median(turn[clock] / turn["steps"] for turn in answers), 4)
            for name, answers in turns.items()
        }
        found[f"{before}ratios"] = {pair: round(statistics.median(each), 3) for pair, each in ratios.items()}
        found[f"{before}by_round"] = {
            pair: [round(ratio, 3) for ratio in each] for pair, each in ratios.items()
        }
    for before in ("", "processor_"):
        sys.stdout.write(f"{setting}: {found[f'{before}seconds_a_step']}, {found[f'{before}ratios']}\n")
    sys.stdout.flush()
    return found


def _save(results: dict[str, Any], python: Path, arguments: argparse.Namespace) -> None:
    where = machine()
    content = {
        "what": "training",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": where,
        "versions": versions(Path(sys.executable)) | versions(python),
        "batch": arguments.batch,
        "steps_a_turn": arguments.steps,
        "settings": results,
    }
    target = (
        arguments.out or ROOT / "benchmarks" / "results" / f"{content['date']}-{where['name']}-training.json"
    )
    if target.exists():
        before = json.loads(target.read_text())["settings"]
        for setting, found in results.items():
            for name in found:
                if name != "setting":
                    found[name] = before.get(setting, {}).get(name, {}) | found[name]
        content["settings"] = before | results
    target.write_text(json.dumps(content, indent=1) + "\n")
    sys.stdout.write(f"kept in {target.name}\n")


if __name__ == "__main__":
    main()
