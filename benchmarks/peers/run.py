"""Chorus beside what people would use instead, each at its best: interleaved rounds, accuracy, pictures.

    python benchmarks/peers/run.py                        every load and contender, and their accuracy
    python benchmarks/peers/run.py --loads labels_64      some loads; added to what is kept of today
    python benchmarks/peers/run.py --accuracy --loads     accuracy alone
    python benchmarks/peers/run.py --contenders hf_mixed  ours beside some peers
    python benchmarks/peers/run.py --peers-python PY      an environment with requirements.txt already there

Every contender answers the same requests with all cores while the others wait. A round is one turn of each of
those chosen; the first is a warm-up. `ratios` are medians over rounds of (their seconds / our seconds): above
1, Chorus is faster. `over_best_peer` compares Chorus as shipped with the fastest peer whose label accuracy is
on each task within half a point of the f32 reference's; `over_fastest_peer` with the fastest of all.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
from accuracy import Accuracy
from comparison import FLOOR_POINTS, best_peer, merged, passing, ratios
from contenders import SHARED, Worker, peers_environment, real_or_random_model
from machine import busy_seconds, machine, versions
from picture import draw, rates
from workload import PROMPT_LENGTH, Load, make_requests, synthetic_ids, texts, write

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OURS = {"chorus": "float32", "chorus_bf16": "bfloat16"}
"""Contenders of ours by the type of the model's matrices; everything else is f32 in both."""
REFERENCE = "hf_mixed"
"""Hugging Face in f32: what the answers of the others are compared with."""
PEERS = (
    REFERENCE, "hf_mixed_bf16", "hf_mixed_bf16_compiled", "peft", "peft_bf16",
    "ctranslate2_f32", "ctranslate2_bf16", "ctranslate2_int8", "ctranslate2_int8_bf16",
)  # fmt: skip
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
    "labels_1000": ("peft", "peft_bf16")
}  # a thousand registered adapters take PEFT longer than the whole benchmark
SETTINGS = {
    "prompts": "100 untuned rows a task for speed, 20 tuned rows for labels",
    "peers": "batches of 8 sorted by text length, of 16 where answers are longer than 8 tokens",
    "bf16, compiled": "the type of the weights; torch.compile of the encoder, dynamic shapes",
    "ctranslate2": "prompts as tokens of a source vocabulary of its own",
}


def main() -> None:
    arguments = _arguments()
    python = arguments.peers_python or peers_environment()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        model = real_or_random_model(scratch)
        peers = Worker([python, HERE / "peer_worker.py", model], scratch / "peers.log")
        not_run = peers.run("unsupported", scratch)["unsupported"]
        chosen = [name for name in arguments.contenders if name not in not_run]
        peers_chosen = [name for name in chosen if name not in OURS]
        workers = {
            name: Worker(
                [sys.executable, HERE / "chorus_worker.py", name, model, arguments.cache, dtype],
                scratch / f"{name}.log",
            )
            for name, dtype in OURS.items()
            if arguments.loads or name in chosen
        } | dict.fromkeys([REFERENCE, *peers_chosen], peers)
        if arguments.accuracy:
            for found in _measure_accuracy(model, scratch, chosen, workers):
                target = _save({**_document(python, not_run), "accuracy": found}, arguments.out)
        for load in (LOADS[name] for name in arguments.loads):
            _write_work(scratch / load.name, load, model)
            for turns in _measure(
                load, scratch / load.name, [*OURS, *peers_chosen], workers, arguments.rounds
            ):
                loads = {load.name: {"load": vars(load), "turns": turns}}
                target = _save({**_document(python, not_run), "loads": loads}, arguments.out)
        for worker in {id(worker): worker for worker in workers.values()}.values():
            worker.close()
    draw(target)
    _print_tables(json.loads(target.read_text()))
    sys.stdout.write(f"\nkept in {target.relative_to(ROOT) if target.is_relative_to(ROOT) else target}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loads", nargs="*", default=None, choices=list(LOADS))
    parser.add_argument(
        "--contenders",
        nargs="*",
        default=[*OURS, *PEERS],
        choices=[*OURS, *PEERS, "one_at_a_time"],
        help="loads always have ours as well, accuracy the reference",
    )
    parser.add_argument("--accuracy", action="store_true", help="measure accuracy (default: without --loads)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default 5)")
    parser.add_argument("--peers-python", type=Path, help="Python of an environment with requirements.txt")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".chorus" / "benchmark_cache", help="compile cache"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="result file, added to where it is there (default: benchmarks/results/DATE-MACHINE-peers.json)",
    )
    arguments = parser.parse_args()
    if arguments.loads is None:
        arguments.loads, arguments.accuracy = list(LOADS), True
    if not arguments.loads and not arguments.accuracy:
        parser.error("--loads: name a load, or ask for --accuracy")
    return arguments


def shipped() -> str:
    """The contender that the server's defaults are."""
    from chorus_server.model.matrix_types import choose_matrix_dtype, processor_flags
    from chorus_server.settings import Settings

    wanted = Settings.model_fields["matrix_dtype"].default
    dtype, _ = choose_matrix_dtype(wanted, "float32", "cpu", processor_flags())
    return next(name for name, theirs in OURS.items() if theirs == dtype)


def _document(python: Path, not_run: dict[str, str]) -> dict[str, Any]:
    return {
        "what": "peers",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(Path(sys.executable)) | versions(python),
        "settings": SETTINGS,
        "shipped": shipped(),
        "not_run": not_run,
        "accuracy": {},
        "loads": {},
    }


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


def _measure_accuracy(
    model: Path, scratch: Path, chosen: list[str], workers: dict[str, Worker]
) -> Iterator[dict[str, dict[str, Any]]]:
    """Each contender's, as soon as it is known; the reference's first."""
    accuracy = Accuracy(model, SHARED, scratch / "accuracy")
    for contender in [REFERENCE, *(name for name in chosen if name != REFERENCE)]:
        worker = workers[contender]
        found = accuracy.measure(
            lambda folder, name=contender, worker=worker: worker.run(name, folder)["answers"]
        )
        sys.stderr.write(f"{contender}: {found}\n")
        yield {contender: found}


def _measure(
    load: Load, folder: Path, chosen: list[str], workers: dict[str, Worker], rounds: int
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """The turns of each round after the warm-up, as soon as it is over."""
    contenders = [name for name in chosen if name not in SKIPPED.get(load.name, ())]
    piece = datetime.now(UTC).strftime("%H:%M:%S")
    for number in range(rounds + 1):
        turns = {}
        for contender in contenders:
            before = busy_seconds()
            answer = workers[contender].run(contender, folder)
            others = max(0.0, busy_seconds() - before - answer["processor_seconds"])
            turns[contender] = [{"round": f"{piece}/{number}", "others_processor_seconds": others, **answer}]
            what = "warm-up" if number == 0 else f"round {number}"
            sys.stderr.write(
                f"{load.name} {what} {contender}: {answer['seconds']:.2f} s, others {others:.2f} s of CPU\n"
            )
        if number:
            yield turns


def _save(content: dict[str, Any], out: Path | None) -> Path:
    """Adds to the kept result, and compares anew."""
    name = f"{content['date']}-{content['machine']['name']}-peers.json"
    target = out or ROOT / "benchmarks" / "results" / name
    if target.exists():
        content = merged(json.loads(target.read_text()), content)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(_compared(content), indent=1) + "\n")
    return target


def _compared(content: dict[str, Any]) -> dict[str, Any]:
    """With every ratio that its turns and its accuracy give."""
    loads = {
        name: {
            "load": load["load"],
            **{f"ratios_{ours}": ratios(load["turns"], ours) for ours in OURS},
            "turns": load["turns"],
        }
        for name, load in content["loads"].items()
    }
    accuracy = content["accuracy"]
    floor = passing(accuracy, REFERENCE) if REFERENCE in accuracy else []
    compared: dict[str, Any] = {
        "floor": f"label accuracy on each task at most {FLOOR_POINTS} points under {REFERENCE}'s",
        "passes_floor": floor,
    }
    for field, peers in (("peer", floor), ("fastest_peer", None)):
        best = {
            name: best_peer(load["turns"], content["shipped"], tuple(OURS), peers)
            for name, load in loads.items()
        }
        prefix = "best_peer" if field == "peer" else field
        compared[f"over_{prefix}"] = {name: found[1] for name, found in best.items() if found}
        compared[prefix] = {name: found[0] for name, found in best.items() if found}
    return {**content, **compared, "loads": loads}


def _print_tables(content: dict[str, Any]) -> None:
    for name, load in content["loads"].items():
        sys.stdout.write(f"\n{name}: {load['load']['requests']} requests, {load['load']['tasks']} tasks\n")
        for contender, rate in rates(load).items():
            beside = " ".join(
                f"{ours} {load[f'ratios_{ours}'][contender]:.2f} x"
                for ours in OURS
                if contender in load[f"ratios_{ours}"]
            )
            sys.stdout.write(f"  {contender:22} {rate:7.2f} requests/s   {beside}\n")
    for contender, found in content["accuracy"].items():
        labels = ", ".join(f"{task} {share:.1f} %" for task, share in found["labels"].items())
        sys.stdout.write(f"{contender:22} greedy {found['greedy_equal']} of {found['of']}, {labels}\n")
    sys.stdout.write(f"over the best peer: {content['over_best_peer']}\n")


if __name__ == "__main__":
    main()
