"""What the type of the matrices changes on this processor: speed, greedy tokens, accuracy of tuned prompts.

    python benchmarks/matrix_dtype.py speed --model FOLDER
    python benchmarks/matrix_dtype.py tokens --model FOLDER --texts sentences.tsv
    python benchmarks/matrix_dtype.py labels --data DATASETS

`speed` measures bare products and the executor's programs in f32 and bf16, in turn. `tokens` compares greedy
answers, of up to 64 tokens, with those of f32 matrices; the embedded base answers behind its tuned prompts,
any other model behind an instruction. `labels` is the accuracy of the embedded base's prompts on the tasks'
report rows (datasets as in `scripts/make_base.py`). Without --model, the embedded base. Each call adds its
part to benchmarks/results/DATE-MACHINE-matrix_dtype.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from base_stages.tasks import Task, collect, read_tasks  # noqa: E402
from benchmarks.executor import ANSWER, NEW, PROMPT_ROWS, PROMPTS, SLOTS, Bench, _ladder  # noqa: E402
from benchmarks.machine import machine  # noqa: E402
from chorus_server.embedded import EMBEDDED, embedded_folder, model_source  # noqa: E402
from chorus_server.engine.executor import build_executor  # noqa: E402
from chorus_server.engine.executor.testing import MemoryPrompts  # noqa: E402
from chorus_server.engine.plans import DecodePlan  # noqa: E402
from chorus_server.engine.sampling import Sampling  # noqa: E402
from chorus_server.model.checkpoints import load_model  # noqa: E402
from chorus_server.model.matrix_types import processor_flags  # noqa: E402
from chorus_server.tuning.training.answering import greedy_answers, label_scores  # noqa: E402
from prompts_store.artifacts import ArtifactLimits, read_artifact  # noqa: E402

TYPES = {"f32": "float32", "bf16": "bfloat16"}
REFERENCE = "f32"
PRODUCT = (1024, 512, 2048)
NEW_TOKENS = 64
RANKED, LABEL_TOKENS = 6, 8
BATCH, LENGTHS, MOST_TEXT = 32, (64, 128, 256), 200
Ids = tuple[int, ...]
INSTRUCTION = "Review: {}\nWrite a short title for this review."


def products() -> dict[str, float]:
    """GF/s of one product of each kind, all cores; best of several, in turn."""
    rows, inner, columns = PRODUCT
    random = np.random.default_rng(0)
    left, right = random.normal(size=(rows, inner)) * 30, random.normal(size=(inner, columns)) * 30
    kinds = {
        "f32": (jnp.float32, jnp.float32),
        "bf16 to f32": (jnp.bfloat16, jnp.float32),
        "bf16 to bf16": (jnp.bfloat16, jnp.bfloat16),
        "int8 to int32": (jnp.int8, jnp.int32),
    }
    runs: dict[str, Callable[[], Any]] = {}
    for name, (operand, sums) in kinds.items():
        a, b = jnp.asarray(left, operand), jnp.asarray(right, operand)
        multiply = jax.jit(lambda a, b, sums=sums: jax.lax.dot(a, b, preferred_element_type=sums))
        runs[name] = lambda a=a, b=b, multiply=multiply: multiply(a, b).block_until_ready()
    best = in_turn(runs, rounds=40)
    return {name: round(2 * rows * inner * columns / seconds / 1e9, 1) for name, seconds in best.items()}


def in_turn(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Shortest seconds of each; one run of each a round, after one that is not counted."""
    best = dict.fromkeys(runs, float("inf"))
    for place in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if place:
                best[name] = min(best[name], time.perf_counter() - started)
    return best


def programs(model: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of the executor's programs, and requests a second of the labels load, by type."""
    benches: dict[str, Bench] = {}
    for name, dtype in TYPES.items():
        loaded = load_model(model_source(model), matrix_dtype=dtype).model.with_attention("pairs")
        random = np.random.default_rng(1)
        width = loaded.config.d_model
        rows = {str(p): random.normal(size=(PROMPT_ROWS, width)).astype(np.float32) for p in range(PROMPTS)}
        executor, _ = build_executor(loaded, _ladder(), PROMPTS * PROMPT_ROWS, MemoryPrompts(rows))
        benches[name] = Bench(executor)
        benches[name].load_prompts()

    def stepping(bench: Bench) -> Callable[[], float]:
        def steps() -> float:
            bench.fill(Sampling(NEW, min_new_tokens=NEW))
            started = time.perf_counter()
            bench.run(DecodePlan(0, 0, "plain", 16))
            return (time.perf_counter() - started) / 16

        return steps

    found: dict[str, dict[str, float]] = {name: {} for name in TYPES}
    for place in range(rounds):
        for name, bench in benches.items():
            labels = bench.labels(4 * SLOTS)
            measured = {
                "encode_8x128_ms": bench.encode_seconds() * 1e3,
                "decode_step_ms": stepping(bench)() * 1e3,
                "score_8_of_4_ms": bench.score_seconds() * 1e3,
                "labels_requests_per_second": labels["requests_per_second"],
            }
            for what, value in measured.items():
                better = max if what.endswith("second") else min
                found[name][what] = better(found[name].get(what, value), value) if place else value
    ratios = {
        what: round(
            found["bf16"][what] / value if what.endswith("second") else value / found["bf16"][what], 2
        )
        for what, value in found["f32"].items()
    }
    return {"by_type": found, "bf16_is_faster_by": ratios, "answer_tokens": ANSWER}


class Answers:
    """A model with matrices of one type, and its answers. A few shapes, each compiled once."""

    def __init__(self, model: str, name: str) -> None:
        loaded = load_model(model_source(model), matrix_dtype=TYPES[name])
        assert loaded.vocabulary is not None
        of = loaded.model.with_attention("pairs")
        self.vocabulary, self.fingerprint, self.config = loaded.vocabulary, loaded.fingerprint, of.config
        self.params, functions = of.params, of.functions
        self._greedy = jax.jit(partial(greedy_answers, functions, NEW_TOKENS))
        self._scores = jax.jit(partial(label_scores, functions))

    def ids(self, text: str, longest: int) -> tuple[int, ...]:
        """A text cut to `longest` ids, and `</s>`."""
        return (*self.vocabulary.encode(text)[:longest], self.vocabulary.eos_id)

    def greedy(self, prompt: Any, inputs: Sequence[Ids]) -> list[Ids]:
        """The tokens of each answer, up to `</s>`."""
        said, eos = self._each(prompt, inputs, self._greedy), self.vocabulary.eos_id
        rows = [row.tolist() for row in said]
        return [tuple(row[: row.index(eos)] if eos in row else row) for row in rows]

    def best(self, prompt: Any, inputs: Sequence[Ids], labels: Sequence[Ids]) -> Any:
        """Index of the likeliest label of each input."""
        ids, lengths = np.zeros((RANKED, LABEL_TOKENS), np.int32), np.zeros(RANKED, np.int32)
        for place, label in enumerate(labels):
            ids[place, : len(label)], lengths[place] = label, len(label)
        targets = np.broadcast_to(ids, (BATCH, *ids.shape)), np.broadcast_to(lengths, (BATCH, RANKED))
        return self._each(prompt, inputs, self._scores, *targets)[:, : len(labels)].argmax(axis=1)

    def _each(self, prompt: Any, inputs: Sequence[Ids], compiled: Any, *more: Any) -> Any:
        table = np.zeros((1, 1, self.config.d_model), np.float32) if prompt is None else prompt[None]
        P, V = 0 if prompt is None else len(prompt), self.config.padded_vocab_size
        order = sorted(range(len(inputs)), key=lambda row: len(inputs[row]))
        found: Any = None
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            longest = P + len(inputs[some[-1]])
            ids = np.zeros((BATCH, next(L for L in LENGTHS if longest <= L)), np.int32)
            sizes = np.zeros(BATCH, np.int32)
            for row, place in enumerate(some):
                sizes[row] = P + len(inputs[place])
                ids[row, : sizes[row]] = [*range(V, V + P), *inputs[place]]
            answers = np.asarray(compiled(self.params, table, ids, sizes, *more))
            if found is None:
                found = np.zeros((len(inputs), *answers.shape[1:]), answers.dtype)
            found[some] = answers[: len(some)]
        return found


def tokens(model: str, texts: Sequence[str], data: Path | None) -> dict[str, Any]:
    """How many greedy answers are the same as with f32 matrices, to the last token."""
    said: dict[str, list[Ids]] = {}
    for name in TYPES:
        answers = Answers(model, name)
        if model != EMBEDDED:
            said[name] = answers.greedy(None, [answers.ids(INSTRUCTION.format(text), 126) for text in texts])
            continue
        assert data is not None, "the embedded base answers behind its prompts: give --data"
        said[name], tasks = [], demo_tasks(data)
        for task in tasks:
            lines = task.texts(task.report)[: -(-500 // len(tasks))]
            rows = [answers.ids(line, MOST_TEXT) for line in lines]
            said[name] += answers.greedy(prompts_of(task.name, answers)[0], rows)
    reference = said[REFERENCE]
    same = {name: sum(a == b for a, b in zip(found, reference, strict=True)) for name, found in said.items()}
    return {
        "inputs": len(reference),
        "same": same,
        "share": {name: round(count / len(reference), 4) for name, count in same.items()},
        "different_answers": len(set(reference)),
        "mean_tokens": round(sum(map(len, reference)) / len(reference), 1),
    }


def labels(data: Path, most: int) -> dict[str, Any]:
    """Accuracy in percent of the first `most` shipped prompts of each task, by type."""
    every = {name: Answers(EMBEDDED, name) for name in TYPES}
    found: dict[str, dict[str, Any]] = {}
    for task in sorted(demo_tasks(data), key=lambda task: len(task.report)):
        said = {name: _said(answers, task, most) for name, answers in every.items()}
        wanted = np.array([label for _, label in task.report])
        entry: dict[str, Any] = {
            name: round(float((each == wanted).mean() * 100), 3) for name, each in said.items()
        }
        found[task.name] = {
            "rows": len(wanted), "prompts": len(said[REFERENCE]), **entry,
            "same_answer": round(float((said["bf16"] == said[REFERENCE]).mean() * 100), 3),
            "difference": round(entry["bf16"] - entry[REFERENCE], 3),
        }  # fmt: skip
        print(task.name, json.dumps(found[task.name]), flush=True)
    return found


def _said(answers: Answers, task: Task, most: int) -> Any:
    """The label, or the text, of each prompt for each report row [N, R]: ranked, or written where there are
    many labels, as the model card measures them."""
    rows = [answers.ids(text, MOST_TEXT) for text in task.texts(task.report)]
    table = prompts_of(task.name, answers)[:most]
    if len(task.labels) > RANKED:
        decode = answers.vocabulary.decode
        return np.array([[decode(said) for said in answers.greedy(prompt, rows)] for prompt in table])
    names = [answers.ids(label, LABEL_TOKENS - 1) for label in task.labels]
    return np.array(task.labels)[np.stack([answers.best(prompt, rows, names) for prompt in table])]


def demo_tasks(data: Path) -> list[Task]:
    """The embedded base's tasks whose datasets are below `data`."""
    folder = embedded_folder()
    assert folder is not None
    names = [task["task"] for task in json.loads((folder / "demo.json").read_text())["tasks"]]
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            try:
                collect(data, Path(scratch), [name])
            except SystemExit as missing:
                print(f"{name} is left out: {missing}")
        return read_tasks(Path(scratch))


def prompts_of(task: str, answers: Answers) -> Any:
    """The shipped prompts of a task [N, P, D]."""
    folder = embedded_folder()
    assert folder is not None
    limits = ArtifactLimits(
        width=answers.config.d_model, max_length=4096, base_fingerprint=answers.fingerprint
    )
    paths = sorted((folder / "prompts").glob(f"{task}-*.safetensors"))
    return np.stack([np.asarray(read_artifact(path, limits=limits).values, np.float32) for path in paths])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["speed", "tokens", "labels"])
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--texts", type=Path, help="the first column after the header is used")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--prompts", type=int, default=3, help="of each task, for `labels`")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--machine", help="in the result's name; by default its cores")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    here = machine()
    name = given.model if given.model == EMBEDDED else Path(given.model).name
    if given.part == "speed":
        part = {"products_gigaflops": products(), "programs": programs(given.model, given.rounds)}
    elif given.part == "tokens":
        lines = given.texts.read_text().splitlines()[1 : given.count + 1] if given.texts else []
        part = tokens(given.model, [line.split("\t")[0].strip() for line in lines], given.data)
    else:
        part = labels(given.data, given.prompts)
    print(json.dumps(part, indent=2))
    path = (
        given.out
        / f"{datetime.now(UTC).date().isoformat()}-{given.machine or here['name']}-matrix_dtype.json"
    )
    record = json.loads(path.read_text()) if path.exists() else {"what": "matrix_dtype", "models": {}}
    record |= {"machine": here, "jax": jax.__version__, "jaxlib": version("jaxlib")}
    record["instruction_sets"] = sorted(flag for flag in processor_flags() if flag.startswith(("amx", "avx")))
    record["models"].setdefault(name, {})[given.part] = part
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
