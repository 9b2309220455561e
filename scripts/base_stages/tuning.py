"""Tunes prompts of a task on one model, several seeds in one job. It continues where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from base_stages.tasks import Row, Task
from chorus_server.model.checkpoints import LoadedModel, load_model
from chorus_server.tuning.data.examples import TextRow, make_examples, target_ids
from chorus_server.tuning.data.splits import Split, cut_from_train
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training import checkpoint
from chorus_server.tuning.training.events import Evaluated
from chorus_server.tuning.training.initialisers import InitialiserSource, initial_prompt
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.programs import compile_programs
from chorus_server.tuning.training.run import PromptTask, TrainingRun
from chorus_server.tuning.training.shapes import shapes_for

EVALUATION_ROWS = 16
SPLIT_SEED = 1
MOST_SELECTION_ROWS = 1_000
MANY_LABELS = 32
"""Above this many labels, the answer is the text that the prompt writes, as when it is served: ranking all
labels of each row would take longer than training."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Tuned:
    """The results of a job.

    Attributes:
        values: the chosen prompts [N, P, D] f32, one for each seed.
        selection, report: accuracy of each prompt on the two splits.
        steps: the chosen step of each prompt.
    """

    values: Any
    selection: tuple[float, ...]
    report: tuple[float, ...]
    steps: tuple[int, ...]


class Tuner:
    """Tunes on one model, which stays loaded."""

    def __init__(self, model: Path, dtype: str, say: Say, stop: Callable[[], bool] = lambda: False) -> None:
        self.loaded: LoadedModel = load_model(model, dtype=dtype)
        self._say, self._stop = say, stop
        embedding = np.asarray(jax.device_get(self.loaded.model.params["embedding"]), np.float32)
        assert self.loaded.vocabulary is not None
        self._vocabulary = self.loaded.vocabulary
        self._source = InitialiserSource(
            self._vocabulary, lambda ids: embedding[list(ids)], embedding.shape[1]
        )

    def tune(
        self, task: Task, recipe: Recipe, folder: Path, *, seeds: int, selection_share: float
    ) -> Tuned | None:
        """Tune all seeds of a task. None if it was stopped, and saved, before the end."""
        job = self._job(task, recipe, seeds, selection_share)
        model = self.loaded.model
        self._say(f"{task.name}: {len(job.tasks[0].train):,} examples, {seeds} seeds, compiling")
        programs = compile_programs(
            model.functions,
            model.params,
            shapes_for(job, evaluation_rows=EVALUATION_ROWS),
            dropping=recipe.dropout_rate > 0,
        )
        loop = TuningLoop(
            job, programs, self._vocabulary.decode, checkpoint.read_state(folder, job),
            lambda state: checkpoint.write_state(folder, job, state),
        )  # fmt: skip
        while not loop.done:
            if self._stop():
                loop.save()
                return None
            for event in loop.run_slice(8):
                if isinstance(event, Evaluated):
                    self._say(
                        f"{task.name}, seed {event.prompt}, step {event.step:,}: {event.split} "
                        f"{100 * event.metrics['mean']:.1f} %{' (best)' if event.best else ''}"
                    )
        return _result(loop)

    def _job(self, task: Task, recipe: Recipe, seeds: int, selection_share: float) -> TrainingRun:
        rows = Split("train", tuple(_text_rows(task, task.train)))
        wanted = min(MOST_SELECTION_ROWS, max(1, round(len(rows.rows) * selection_share)))
        train, selection = cut_from_train(rows, wanted, SPLIT_SEED)
        splits = []
        for split in (train.rows, selection.rows, _text_rows(task, task.report)):
            examples, warnings = make_examples(split, self._vocabulary, recipe)
            splits.append(examples)
            for warning in warnings:
                self._say(f"{task.name}: {warning}")
        ranked = task.labels if len(task.labels) <= MANY_LABELS else ()
        label_ids = tuple(target_ids(label, self._vocabulary, recipe) for label in ranked)
        prompts = tuple(
            PromptTask(
                index=seed, recipe=recipe, train=splits[0], validation=splits[1], test=splits[2],
                initial=initial_prompt(recipe, self._source, 0, seed, labels=task.labels),
                labels=ranked, label_ids=label_ids, metrics=("accuracy" if ranked else "exact_match",),
            )
            for seed in range(seeds)
        )  # fmt: skip
        return TrainingRun(0, prompts)


def _text_rows(task: Task, rows: Sequence[Row]) -> list[TextRow]:
    texts = task.texts(rows)
    return [
        TextRow(n + 1, text, (label,)) for n, (text, (_, label)) in enumerate(zip(texts, rows, strict=True))
    ]


def _result(loop: TuningLoop) -> Tuned:
    standings = loop.state.standings

    def last(split: str) -> tuple[float, ...]:
        return tuple(
            max(
                (e["metrics"]["mean"] for e in standing.evaluations if e["split"] == split),
                default=float("nan"),
            )
            for standing in standings
        )

    steps = tuple(standing.best_step or 0 for standing in standings)
    return Tuned(loop.state.best, last("validation"), last("test"), steps)
