"""Quality of prompts after 300 steps: Chorus beside PEFT in bf16 autocast, three seeds each.

    python -m benchmarks.training.quality peft --peers-python PY    train PEFT's prompts
    python -m benchmarks.training.quality chorus                    train ours
    python -m benchmarks.training.quality measure                   measure both, and write the result

Both start at the same rows and see the same batches in the same order, with dropout; then one program
measures both on the published dev or test split, in f32, and keeps every prediction. What is done stays in
`--folder`, so each part can be run again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from contenders import SHARED, Worker, peers_environment

from benchmarks.machine import machine, versions
from benchmarks.tuning.rows import load_rows
from benchmarks.tuning.statistics import paired_bootstrap
from chorus_server.model.checkpoints import load_model
from chorus_server.model.fused_attention import choose_attention
from chorus_server.model.matrix_types import choose_matrix_dtype, processor_flags
from chorus_server.tuning.data.examples import make_examples, target_ids
from chorus_server.tuning.data.order import batch_indices
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training.answering import label_scores
from chorus_server.tuning.training.initialisers import InitialiserSource, initial_prompt
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.programs import compile_programs
from chorus_server.tuning.training.run import PromptTask, TrainingRun
from chorus_server.tuning.training.shapes import shapes_for

ROOT = Path(__file__).parents[2]
MODEL = SHARED / "models" / "flan-t5-small-title"
TASKS = ("sst2", "trec")
SEEDS = (0, 1, 2)
RECIPE = Recipe(
    steps=300, batch_size=16, prompt_length=20, learning_rate=0.3, dropout_rate=0.1, max_input_tokens=61,
    evaluate_every_steps=10**6, checkpoint_every_steps=10**6,
)  # fmt: skip
ROWS = 32
"""Of a dispatch of the measurement."""


@lru_cache
def _resident(dtype: str) -> Any:
    loaded = load_model(MODEL, dtype="float32", matrix_dtype=dtype)
    return loaded.vocabulary, loaded.model.with_attention(choose_attention("auto", "float32")[0])


def _matrix_dtype() -> str:
    return choose_matrix_dtype("auto", "float32", "cpu", processor_flags())[0]


def _job(name: str, seed: int) -> TrainingRun:
    vocabulary, model = _resident(_matrix_dtype())
    rows = load_rows(name, SHARED / "data")
    embedding = np.asarray(model.params["embedding"], np.float32)
    source = InitialiserSource(vocabulary, lambda ids: embedding[list(ids)], embedding.shape[1])
    train, _ = make_examples(rows.train.rows, vocabulary, RECIPE)
    test, _ = make_examples(rows.report, vocabulary, RECIPE)
    labels = tuple(rows.task.labels)
    prompt = PromptTask(
        index=seed, recipe=RECIPE, initial=initial_prompt(RECIPE, source, 0, seed, labels=labels),
        train=train, validation=(), test=test, labels=labels,
        label_ids=tuple(target_ids(label, vocabulary, RECIPE) for label in labels),
    )  # fmt: skip
    return TrainingRun(0, (prompt,))


def _write_work(folder: Path, job: TrainingRun) -> None:
    (task,) = job.tasks
    size, count = RECIPE.batch_size, len(task.train)
    batches = [batch_indices(job.seed, task.index, step, size, count) for step in range(RECIPE.steps)]
    used = {int(n): place for place, n in enumerate(sorted({n for each in batches for n in each}))}
    work = {
        "seed": task.index,
        "dropout": RECIPE.dropout_rate,
        "prompt_length": RECIPE.prompt_length,
        "learning_rate": RECIPE.learning_rate,
        "padded": None,
        "inputs": [task.train[n].input_ids for n in used],
        "targets": [task.train[n].target_ids for n in used],
        "batches": [[used[int(n)] for n in each] for each in batches],
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "prompt.npy", task.initial)
    (folder / "work.json").write_text(json.dumps(work))


def _train_ours(folder: Path, job: TrainingRun) -> None:
    _, model = _resident(_matrix_dtype())
    programs = compile_programs(
        model.functions, model.params, shapes_for(job, evaluation_rows=1), dropping=RECIPE.dropout_rate > 0
    )
    loop = TuningLoop(job, programs, lambda ids: "")
    while len(loop.state.losses) < RECIPE.steps:
        loop.run_slice(1)
    np.save(folder / "chorus.npy", loop.state.prompts[0])
    (folder / "chorus.json").write_text(json.dumps([float(each[0]) for each in loop.state.losses]))


def _predictions(job: TrainingRun, prompt: Any) -> list[int]:
    """The place of the likeliest label of each row of the published split."""
    _, model = _resident("float32")
    (task,), V = job.tasks, model.config.padded_vocab_size
    width = max(len(ids) for ids in task.label_ids)
    labels = np.array([[*ids, *[0] * (width - len(ids))] for ids in task.label_ids], np.int32)
    lengths = np.array([len(ids) for ids in task.label_ids], np.int32)
    score = _score(model.functions)
    found: list[int] = []
    for start in range(0, len(task.test), ROWS):
        some = task.test[start : start + ROWS]
        ids = np.zeros((ROWS, RECIPE.max_input_tokens), np.int32)
        long = np.zeros(ROWS, np.int32)
        for row, example in enumerate(some):
            whole = [*range(V, V + RECIPE.prompt_length), *example.input_ids]
            ids[row, : len(whole)], long[row] = whole, len(whole)
        each = np.broadcast_to(labels, (ROWS, *labels.shape)), np.broadcast_to(lengths, (ROWS, len(lengths)))
        scores = score(model.params, prompt[None], ids, long, *each)
        found += np.asarray(scores).argmax(axis=1)[: len(some)].tolist()
    return found


@lru_cache
def _score(functions: Any) -> Any:
    return jax.jit(partial(label_scores, functions))


def _measure(folder: Path, out: Path, python: Path | None) -> None:
    tasks: dict[str, Any] = {}
    for name in TASKS:
        found: dict[str, Any] = {"chorus": [], "peft": []}
        for seed in SEEDS:
            job = _job(name, seed)
            (task,) = job.tasks
            answers = [task.labels.index(example.answers[0]) for example in task.test]
            for who, runs in found.items():
                said = _predictions(job, np.load(folder / f"{name}-{seed}" / f"{who}.npy"))
                right = [int(a == b) for a, b in zip(said, answers, strict=True)]
                runs.append(
                    {"seed": seed, "accuracy": float(np.mean(right)), "predictions": said, "right": right}
                )
                sys.stdout.write(f"{name} seed {seed} {who}: {100 * runs[-1]['accuracy']:.1f}\n")
        rights = {who: np.array([run.pop("right") for run in runs]) for who, runs in found.items()}
        tasks[name] = {
            "rows": len(answers), "answers": answers, **found,
            "mean": {who: float(each.mean()) for who, each in rights.items()},
            "sd": {who: float(each.mean(axis=1).std(ddof=1)) for who, each in rights.items()},
            "ours_less_theirs": paired_bootstrap(rights["chorus"], rights["peft"]),
        }  # fmt: skip
        sys.stdout.write(f"{name}: {tasks[name]['mean']} {tasks[name]['ours_less_theirs']}\n")
    content = {
        "what": "training_quality", "date": datetime.now(UTC).date().isoformat(), "machine": machine(),
        "versions": versions(Path(sys.executable)) | (versions(python) if python else {}),
        "model": MODEL.name, "recipe": RECIPE.to_json(), "matrix_dtype": _matrix_dtype(),
        "peft": "bf16 autocast, frozen weights in bf16", "tasks": tasks,
    }  # fmt: skip
    out.write_text(json.dumps(content) + "\n")


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("peft", "chorus", "measure"))
    parser.add_argument("--folder", type=Path, default=ROOT / ".chorus" / "training_quality")
    parser.add_argument("--peers-python", type=Path, help="Python of an environment with the peers")
    parser.add_argument(
        "--out", type=Path, help="result file (default: results/DATE-MACHINE-training_quality.json)"
    )
    options = parser.parse_args()
    if options.part == "measure":
        name = f"{datetime.now(UTC).date().isoformat()}-{machine()['name']}-training_quality.json"
        _measure(options.folder, options.out or ROOT / "benchmarks" / "results" / name, options.peers_python)
        return
    worker = None
    for seed in SEEDS:
        for name in TASKS:
            folder = options.folder / f"{name}-{seed}"
            if (folder / f"{options.part}.npy").exists():
                continue
            job = _job(name, seed)
            _write_work(folder, job)
            if options.part == "chorus":
                _train_ours(folder, job)
            else:
                options.peers_python = options.peers_python or peers_environment()
                command = [options.peers_python, ROOT / "benchmarks/training/peft_worker.py", MODEL, "bf16"]
                worker = worker or Worker(command, options.folder / "peft.log")
                (folder / "peft.json").write_text(json.dumps(worker.run("tune", folder)))
            sys.stdout.write(f"{options.part} {name} seed {seed} done\n")
            sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
