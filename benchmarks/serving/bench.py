"""What the parts share: the model, texts and ids, the engine in this process and the server in another."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contenders import ROOT, SHARED, real_or_random_model
from direct import Direct
from served import Served
from sizes import Sizes
from workload import Load, Request, make_requests, texts

from chorus.load.inputs import SENTENCES
from chorus_server.engine.executor import use_persistent_cache
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.settings.values import ShapeChoice
from make_toy_model import train_vocabulary


class Bench:
    """Made once a run; engine and server are made when a part first asks for them.

    Args:
        scratch: thrown away after the run.
        cache: compiled programs, kept.
    """

    def __init__(self, sizes: Sizes, scratch: Path, cache: Path) -> None:
        self.sizes, self.scratch, self.cache = sizes, scratch, cache
        cache.mkdir(parents=True, exist_ok=True)
        use_persistent_cache(str(cache))
        self.model = _model(scratch, sizes.model)
        self.vocabulary = Vocabulary.load(self.model / "spiece.model")
        self.texts = _texts()
        self.width = int(json.loads((self.model / "config.json").read_text())["d_model"])
        self._direct: Direct | None = None
        self._served: Served | None = None

    @property
    def text_room(self) -> int:
        """Ids of a text with `</s>` that fit beside a prompt."""
        return self.sizes.longest - self.sizes.prompt_length

    @property
    def direct(self) -> Direct:
        """The engine's programs in this process."""
        if self._direct is None:
            self._direct = Direct(self.model, self.sizes.prompt_rows, self.sizes.ladder)
        return self._direct

    @property
    def served(self) -> Served:
        """The server in a process of its own, with `served_tasks` prompts in it."""
        if self._served is None:
            shapes = ShapeChoice.model_validate(self.sizes.ladder)
            settings = {"prompt_rows": self.sizes.prompt_rows, "shapes": str(shapes)}
            self._served = Served(self.scratch / "served", self.model, self.cache, settings)
            for number in range(self.sizes.served_tasks):
                self._served.upload(f"task{number}", self.prompt(number))
        return self._served

    def close(self) -> None:
        """End the server."""
        if self._served is not None:
            self._served.close()

    def prompt(self, number: int, length: int | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """`[P, D]` f32 with the spread of a tuned prompt's values."""
        shape = (length or self.sizes.prompt_length, self.width)
        return np.random.default_rng(number).normal(0, 5, shape).astype(np.float32)

    def ids(self, text: str) -> list[int]:
        """A text as the server reads it with `truncate`, `</s>` last."""
        return [*self.vocabulary.encode(text)[: self.text_room - 1], self.vocabulary.eos_id]

    def requests(
        self, tasks: int, count: int, *, skew: str = "uniform", new_tokens: str = "labels", seed: int = 0
    ) -> list[Request]:
        """Requests over the texts: equal texts and lengths for equal seeds, whatever the tasks."""
        inputs = [self.ids(text) for text in self.texts]
        load = Load("", 1, count, new_tokens=new_tokens, seed=seed)
        picks = make_requests(Load("", tasks, count, skew=skew, seed=seed), [[1]], 1)
        return [
            dataclasses.replace(request, task=pick.task)
            for request, pick in zip(make_requests(load, inputs, self.text_room), picks, strict=True)
        ]

    def bodies(self, count: int, seed: int = 0) -> list[dict[str, Any]]:
        """Items of `/v1/generate` over the served tasks: 4 new tokens each, texts as `requests` has them."""
        choose = random.Random(seed)
        start = choose.randrange(len(self.texts))
        return [
            {
                "task": f"task{n % self.sizes.served_tasks}",
                "input": self.texts[(start + n) % len(self.texts)],
                "max_new_tokens": 4,
                "min_new_tokens": 4,
                "truncate": True,
            }
            for n in range(count)
        ]

    def as_requests(self, bodies: Sequence[dict[str, Any]]) -> list[Request]:
        """The same work for the engine called directly."""
        return [
            Request(int(body["task"].removeprefix("task")), self.ids(body["input"]), body["max_new_tokens"])
            for body in bodies
        ]


def _texts() -> list[str]:
    """Real texts where they are; else sentences of our own, one to twenty of them in a row."""
    if (SHARED / "data").exists():
        return texts(SHARED)
    choose = random.Random(0)
    return [" ".join(choose.choices(SENTENCES, k=(1, 4, 12)[n % 3])) for n in range(600)]


def _model(scratch: Path, size: str) -> Path:
    # A random model needs a vocabulary to read text at all.
    lines = [*SENTENCES, *(ROOT / "LICENSE").read_text().splitlines()]
    return real_or_random_model(scratch, size=size, vocabulary=train_vocabulary(lines, scratch))
