"""The requests that every contender answers: real texts, prompts, a task and a number of new tokens each.

Written as one JSON file and one `.npy` of prompts, so that every process reads the very same work.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

PROMPT_LENGTH = 100
END = 1
"""The id of `</s>`."""


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        task: index into the prompts.
        ids: token ids of the text with `</s>`.
        new_tokens: tokens to make: this many, or at most this many.
        exact: this many, whatever the model says. False: the answer ends with `</s>`, and is handed back.
    """

    task: int
    ids: list[int]
    new_tokens: int
    exact: bool = True


@dataclass(frozen=True)
class Load:
    """A named load.

    Attributes:
        tasks: distinct tasks drawn from.
        skew: `uniform`, or `zipf` (exponent 1 over the task's rank).
        new_tokens: `labels` is 4 each; `uniform` 8 to 64; `long_tail` a log-normal of median 12 and p99 128.
    """

    name: str
    tasks: int
    requests: int
    skew: str = "uniform"
    new_tokens: str = "labels"
    seed: int = 0


def texts(shared: Path) -> list[str]:
    """SST-2, RTE and BoolQ, a third each: about 10 to 300 tokens."""
    glue, superglue = shared / "data" / "glue", shared / "data" / "superglue"
    sst2 = [row.split("\t")[0] for row in (glue / "SST-2" / "dev.tsv").read_text().splitlines()[1:]]
    rte = [row.split("\t") for row in (glue / "RTE" / "dev.tsv").read_text().splitlines()[1:]]
    boolq = [json.loads(row) for row in (superglue / "BoolQ" / "val.jsonl").read_text().splitlines()]
    pairs = [f"premise: {row[1]} hypothesis: {row[2]}" for row in rte]
    questions = [f"question: {row['question']} passage: {row['passage']}" for row in boolq]
    count = min(len(sst2), len(pairs), len(questions))
    return [
        text for three in zip(sst2[:count], pairs[:count], questions[:count], strict=True) for text in three
    ]


def synthetic_ids(count: int, vocab: int, seed: int) -> list[list[int]]:
    """Random ids with the lengths that the real texts have, for machines without them."""
    generator = np.random.default_rng(seed)
    groups = ((26, 9), (75, 30), (150, 60))
    lengths = [max(6, int(generator.normal(*groups[n % 3]))) for n in range(count)]
    return [[*generator.integers(100, vocab - 200, min(n, 300)).tolist(), 1] for n in lengths]


def make_requests(load: Load, inputs: list[list[int]], longest: int) -> list[Request]:
    """The load's requests over these tokenised inputs, cut to `longest` ids."""
    generator = np.random.default_rng(load.seed)
    weights = 1 / np.arange(1, load.tasks + 1) if load.skew == "zipf" else np.ones(load.tasks)
    tasks = generator.choice(load.tasks, load.requests, p=weights / weights.sum())
    if load.skew == "uniform" and load.requests >= load.tasks:
        tasks = generator.permutation(np.arange(load.requests) % load.tasks)  # every task is there
    wanted = list(_new_tokens(load, generator))
    start = int(generator.integers(len(inputs)))
    return [
        Request(int(tasks[n]), _cut(inputs[(start + n) % len(inputs)], longest), wanted[n])
        for n in range(load.requests)
    ]


def _new_tokens(load: Load, generator: np.random.Generator) -> Iterator[int]:
    for _ in range(load.requests):
        if load.new_tokens == "labels":
            yield 4
        elif load.new_tokens == "uniform":
            yield int(generator.integers(8, 65))
        else:
            # p99 / median = 128 / 12, and the 99 % point of a standard normal is 2.326.
            yield int(np.clip(np.exp(np.log(12) + np.log(128 / 12) / 2.326 * generator.normal()), 1, 128))


def _cut(ids: list[int], longest: int) -> list[int]:
    return ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]]


def ended(tokens: Iterable[int]) -> list[int]:
    """An answer's tokens before `</s>`."""
    return list(itertools.takewhile(lambda token: token != END, tokens))


def write(folder: Path, load: Load, requests: list[Request], prompts: np.ndarray[Any, Any]) -> None:
    """`requests.json` and `prompts.npy` [tasks, P, D] f32."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "prompts.npy", prompts.astype(np.float32))
    content = {"load": asdict(load), "requests": [asdict(request) for request in requests]}
    (folder / "requests.json").write_text(json.dumps(content))


def read(folder: Path) -> tuple[list[Request], np.ndarray[Any, Any]]:
    """What `write` wrote."""
    content = json.loads((folder / "requests.json").read_text())
    return [Request(**request) for request in content["requests"]], np.load(folder / "prompts.npy")
