"""Chorus beside what people would use instead: interleaved rounds, medians, a table, JSON.

    python benchmarks/peers/run.py                    every load, every peer
    python benchmarks/peers/run.py --loads labels_64  some loads
    python benchmarks/peers/run.py --peers-python PY  an environment with requirements.txt already there

Every contender answers the same requests with both cores while the others wait. A round is one turn of each;
the first is a warm-up. `ratios` are medians over rounds of (their seconds / our seconds): above 1, Chorus is
faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
from contenders import SHARED, Worker, peers_environment, real_or_random_model
from machine import machine, versions
from picture import draw
from workload import PROMPT_LENGTH, Load, make_requests, synthetic_ids, texts, write

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OURS = {"chorus": "float32", "chorus_bf16": "bfloat16"}
"""Contenders of ours by the type of the model's matrices; everything else is f32 in both."""
PEERS = ("peft", "hf_mixed", "one_at_a_time", "ctranslate2_f32", "ctranslate2_int8")
LOADS = {
    load.name: load
    for load in (
        Load("labels_1", 1, 96),
        Load("labels_32", 32, 96),
        Load("labels_64", 64, 96),
        Load("labels_64_zipf", 64, 96, skew="zipf"),
        Load("labels_1000", 1000, 96),
        Load("text_64", 64, 96, new_tokens="uniform"),
        Load("text_64_long_tail", 64, 96, new_tokens="long_tail"),
    )
}
SKIPPED = {
    "labels_1000": ("peft",)
}  # a thousand registered adapters take PEFT longer than the whole benchmark


def main() -> None:
    arguments = _arguments()
    python = arguments.peers_python or peers_environment()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        model = real_or_random_model(scratch)
        _convert(python, model, scratch / "ct2")
        ours = {
            name: Worker(
                [sys.executable, HERE / "chorus_worker.py", model, arguments.cache, dtype],
                scratch / f"{name}.log",
            )
            for name, dtype in OURS.items()
        }
        peers = Worker([python, HERE / "peer_worker.py", model, scratch / "ct2"], scratch / "peers.log")
        results = {}
        for load in (LOADS[chosen] for chosen in arguments.loads):
            _write_work(scratch / load.name, load, model)
            results[load.name] = _measure(load, scratch / load.name, ours, peers, arguments)
            _print_table(load, results[load.name])
        for worker in (*ours.values(), peers):
            worker.close()
    _save(results, python, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loads", nargs="+", default=list(LOADS), choices=list(LOADS))
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default 5)")
    parser.add_argument("--peers-python", type=Path, help="Python of an environment with requirements.txt")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".chorus" / "benchmark_cache", help="compile cache"
    )
    parser.add_argument(
        "--out", type=Path, help="result file (default: benchmarks/results/DATE-MACHINE-peers.json)"
    )
    return parser.parse_args()


def _convert(python: Path, model: Path, target: Path) -> None:
    command = [python.parent / "ct2-transformers-converter", "--model", model, "--output_dir", target]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _write_work(folder: Path, load: Load, model: Path) -> None:
    from chorus_server.model.vocabulary import Vocabulary

    if (model / "spiece.model").exists() and (SHARED / "data").exists():
        vocabulary = Vocabulary.load(model / "spiece.model")
        inputs = [[*vocabulary.encode(text), vocabulary.eos_id] for text in texts(SHARED)]
    else:
        inputs = synthetic_ids(1000, 32_000, load.seed)
    width = json.loads((model / "config.json").read_text())["d_model"]
    # Spread of a tuned prompt's rows rather than of an embedding's: it changes nothing for speed.
    prompts = np.random.default_rng(1).normal(0, 5, (load.tasks, PROMPT_LENGTH, width)).astype(np.float32)
    write(folder, load, make_requests(load, inputs, 512 - PROMPT_LENGTH), prompts)


def _measure(
    load: Load, folder: Path, ours: dict[str, Worker], peers: Worker, arguments: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    contenders = [*OURS, *(peer for peer in arguments.peers if peer not in SKIPPED.get(load.name, ()))]
    turns: dict[str, list[dict[str, Any]]] = {contender: [] for contender in contenders}
    for number in range(arguments.rounds + 1):
        for contender in contenders:
            answer = ours.get(contender, peers).run(contender, folder)
            what = "warm-up" if number == 0 else f"round {number}"
            sys.stderr.write(f"{load.name} {what} {contender}: {answer['seconds']:.2f} s\n")
            if number:
                turns[contender].append(answer)
    return turns


def _ratios(turns: dict[str, list[dict[str, Any]]], of: str = "chorus") -> dict[str, float]:
    """How often the time of one of ours the others take."""
    ours = [turn["seconds"] for turn in turns[of]]
    return {
        peer: round(statistics.median(t["seconds"] / own for t, own in zip(theirs, ours, strict=True)), 3)
        for peer, theirs in turns.items()
        if peer not in OURS
    }


def _print_table(load: Load, turns: dict[str, list[dict[str, Any]]]) -> None:
    ratios, bf16 = _ratios(turns), _ratios(turns, "chorus_bf16")
    sys.stdout.write(f"\n{load.name}: {load.requests} requests, {load.tasks} tasks\n")
    for contender, answers in turns.items():
        seconds = [answer["seconds"] for answer in answers]
        rate = load.requests / statistics.median(seconds)
        ratio = (
            f"chorus {ratios[contender]:.2f} x, bf16 {bf16[contender]:.2f} x" if contender in ratios else ""
        )
        spread = f"{min(seconds):.2f} to {max(seconds):.2f} s"
        sys.stdout.write(f"  {contender:18} {rate:7.2f} requests/s   {spread:20} {ratio}\n")
    sys.stdout.flush()


def _save(results: dict[str, Any], python: Path, arguments: argparse.Namespace) -> None:
    where = machine()
    labels = results.get("labels_64", {name: [] for name in OURS})
    content = {
        "what": "peers",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": where,
        "versions": versions(Path(sys.executable)) | versions(python),
        "ratios": _ratios(labels),
        "ratios_bf16": _ratios(labels, "chorus_bf16"),
        "loads": {
            name: {
                "load": vars(LOADS[name]),
                "ratios": _ratios(turns),
                "ratios_bf16": _ratios(turns, "chorus_bf16"),
                "turns": turns,
            }
            for name, turns in results.items()
        },
    }
    name = f"{content['date']}-{where['name']}-peers.json"
    target = arguments.out or ROOT / "benchmarks" / "results" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content, indent=1) + "\n")
    draw(target)
    sys.stdout.write(f"\nkept in {target.relative_to(ROOT) if target.is_relative_to(ROOT) else target}\n")


if __name__ == "__main__":
    main()
