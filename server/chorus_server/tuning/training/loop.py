"""The training loop. It advances in bounded slices, so that requests can be served in between.

    step:  micro-batch, micro-batch, ..., optimiser    -> StepFinished
    every `evaluate_every_steps`: the validation split -> Evaluated, best values kept, early stopping
    every `checkpoint_every_steps` and evaluation      -> `save`
    at the end: the test split, on the best values     -> Evaluated

It has no thread, clock or randomness of its own. The state changes only when a step or an evaluation is
complete, so it may be written after any slice, and a loop that starts from it goes on as if it had never
stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chorus_server.quality.mistakes import Mistakes
from chorus_server.quality.vote import Ballot
from chorus_server.tuning.data.order import batch_indices, epoch_of
from chorus_server.tuning.training.evaluation import Decode, Evaluator
from chorus_server.tuning.training.events import (
    Evaluated,
    PromptStopped,
    StepFinished,
    TrainingEvent,
)
from chorus_server.tuning.training.objective import LossConfig
from chorus_server.tuning.training.optimiser import settings_at
from chorus_server.tuning.training.packing import dispatches, pack_batch
from chorus_server.tuning.training.programs import TuningPrograms, empty_sums
from chorus_server.tuning.training.run import PromptTask, TrainingRun
from chorus_server.tuning.training.shapes import deals, dealt
from chorus_server.tuning.training.state import TrainingState

Save = Callable[[TrainingState], None]
"""Writes a state durably, or raises: see `checkpoint.write_state`. To write it later, take a `snapshot` of
it."""


class TuningLoop:
    """Trains one run, from its state to the end.

    Args:
        programs: compiled for `shapes_for(run)`.
        decode: ids to text, for tasks without labels.
        state: from a checkpoint; None to start anew.
        save: called with the state when a checkpoint is due; None writes none.
        until: end after this step, measured on the validation split; None for the last step of the recipe.
        tested: places of the prompts that are then measured on the test split; None for all. Without any, the
            run can go on later.
        seconds: tells how long the device has worked on the run.
    """

    def __init__(
        self,
        run: TrainingRun,
        programs: TuningPrograms,
        decode: Decode,
        state: TrainingState | None = None,
        save: Save | None = None,
        *,
        until: int | None = None,
        tested: Collection[int] | None = None,
        seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.run = run
        self.state = state or TrainingState.start(run)
        self.done = False
        self._programs = programs
        self._evaluator = Evaluator(run, programs, decode)
        self._save = save
        self._last_step = run.recipe.steps if until is None else until
        self._tested = range(len(run.tasks)) if tested is None else tested
        self._seconds = seconds
        self._saved_step = self.state.step
        self._recipes = [task.recipe for task in run.tasks]
        self._loss = LossConfig(np.float32(run.recipe.dropout_rate), np.float32(run.recipe.z_loss))
        self._prompts: Any = jnp.asarray(self.state.prompts)
        self._second_moment: Any = jnp.asarray(self.state.second_moment)
        self._events: list[TrainingEvent] = []
        self._failed = False
        self._work = self._run()

    def run_slice(self, max_micro_batches: int) -> tuple[TrainingEvent, ...]:
        """Make at most so many dispatches, of training or evaluation, and return what happened.

        Raises:
            OSError: a checkpoint could not be written. The last one is whole: make a new loop from it.
        """
        if self._failed:
            raise RuntimeError("this loop failed or was closed; make a new one from the last checkpoint")
        for _ in range(max_micro_batches):
            try:
                self.done = next(self._work, self) is self
            except BaseException:
                self._failed = True
                raise
            if self.done:
                break
        events, self._events = tuple(self._events), []
        return events

    def save(self) -> None:
        """Write the state now, for a job that is cancelled or paused. What an unfinished step has summed is
        not in it."""
        self.state.seconds = self._seconds()
        if self._save is not None:
            self._save(self.state)
            self._saved_step = self.state.step

    def close(self) -> None:
        """End, between two slices, a loop that may not be done. Its work refers to it: without this, programs
        and arrays would wait for the garbage collector, which hardly ever looks at what is no longer new."""
        self._failed = not self.done
        self._work.close()

    def _run(self) -> Generator[None, None, None]:
        state, recipe = self.state, self.run.recipe
        while True:
            if self._evaluation_due():
                yield from self._evaluate()
                self.save()
            elif state.step - self._saved_step >= recipe.checkpoint_every_steps:
                self.save()
            if state.step >= self._last_step or not any(state.active):
                break
            yield from self._step()
        if self._tested:
            yield from self._finish()

    def _step(self) -> Iterator[None]:
        """Run all micro-batches of a step, and the optimiser after the last one."""
        state, programs = self.state, self._programs
        parts = dispatches(programs.shapes, self.run, [self._batch(task) for task in self.run.tasks])
        sums = empty_sums(programs.shapes)
        for number, (length, some) in enumerate(parts, start=1):
            batch = pack_batch(programs.vocab_rows, programs.shapes, self.run, state.step, some, length)
            program = programs.accumulate[length]
            sums = program(programs.params, self._prompts, sums, batch, self._loss)
            if number < len(parts):
                # A slice is over when the device is done, not when the work is enqueued.
                jax.block_until_ready(sums)  # type: ignore[no-untyped-call]
                yield
        settings = settings_at(self._recipes, state.step)
        active = np.array(state.active)
        self._prompts, self._second_moment, losses, finite = programs.apply(
            self._prompts, self._second_moment, sums, settings, active
        )
        self._absorb(np.asarray(losses), np.asarray(finite), settings.learning_rate)
        yield

    def _batch(self, task: PromptTask) -> list[int]:
        """Indices of the step's examples of one prompt: micro-batches of similar lengths, which take small
        rungs, or of equal sums of lengths if there is one rung. The step's sum stays the same."""
        size, every = self.run.recipe.batch_size, task.train
        indices = batch_indices(self.run.seed, task.index, self.state.step, size, len(every))
        shortest_first = sorted(indices, key=lambda index: len(every[index].input_ids))
        shapes = self._programs.shapes
        if not deals(shapes.input_lengths, shapes.groups):
            return shortest_first
        return dealt(shortest_first, shapes.rows_at(shapes.input_lengths[0]))

    def _absorb(self, losses: Any, finite: Any, learning_rates: Any) -> None:
        """Take over a finished step."""
        state, recipe = self.state, self.run.recipe
        state.prompts, state.second_moment = np.asarray(self._prompts), np.asarray(self._second_moment)
        state.step += 1
        state.losses.append(losses)
        self._events.append(
            StepFinished(
                state.step,
                tuple(float(loss) if np.isfinite(loss) else None for loss in losses),
                tuple(float(rate) for rate in learning_rates),
                tuple(epoch_of(state.step, recipe.batch_size, len(task.train)) for task in self.run.tasks),
            )
        )
        for n, standing in enumerate(state.standings):
            if standing.status == "running" and not finite[n]:
                self._stop(n, "diverged", _diverged(state.step, float(learning_rates[n])))

    def _evaluation_due(self) -> bool:
        state, recipe = self.state, self.run.recipe
        ended = state.step >= self._last_step
        return state.step > state.evaluated_step and (ended or state.step % recipe.evaluate_every_steps == 0)

    def _evaluate(self) -> Iterator[None]:
        """Measure the prompts that still train; keep the best values, and stop prompts that get no better."""
        state = self.state
        splits = [
            task.validation if on else () for task, on in zip(self.run.tasks, state.active, strict=True)
        ]
        found: list[dict[str, float] | None] = []
        mistakes: list[Mistakes | None] = []
        yield from self._evaluator.measure(self._prompts, splits, found, mistakes=mistakes)
        state.evaluated_step = state.step
        for n, metrics in enumerate(found):
            if state.standings[n].status == "running":
                self._judge(n, metrics, mistakes[n])

    def _judge(self, n: int, metrics: dict[str, float] | None, mistakes: Mistakes | None) -> None:
        standing, recipe = self.state.standings[n], self.run.tasks[n].recipe
        better = metrics is None or standing.best_metric is None or metrics["mean"] > standing.best_metric
        if better:
            standing.best_step, standing.without_better = self.state.step, 0
            standing.mistakes = mistakes
            self.state.best[n] = self.state.prompts[n]
        else:
            standing.without_better += 1
        if metrics is None:
            return
        standing.best_metric = metrics["mean"] if better else standing.best_metric
        self._tell(n, "validation", self.state.step, metrics, better)
        if 0 < recipe.early_stopping_evaluations <= standing.without_better:
            message = f"no better metric in {standing.without_better} evaluations; the best was at step "
            self._stop(n, "stopped_early", f"{message}{standing.best_step}")

    def _finish(self) -> Iterator[None]:
        """Measure the chosen values on the test split, and end."""
        state = self.state
        for standing in state.standings:
            if standing.status == "running":
                standing.status = "finished"
        if not state.tested:
            chosen = [
                standing.best_step is not None and n in self._tested
                for n, standing in enumerate(state.standings)
            ]
            splits = [task.test if on else () for task, on in zip(self.run.tasks, chosen, strict=True)]
            found: list[dict[str, float] | None] = []
            ballots: list[list[Ballot]] = []
            mistakes: list[Mistakes | None] = []
            best = jnp.asarray(state.best)
            yield from self._evaluator.measure(best, splits, found, ballots, mistakes, "test")
            for n, metrics in enumerate(found):
                if metrics is not None:
                    state.standings[n].mistakes = state.standings[n].mistakes or mistakes[n]
                    self._tell(n, "test", state.standings[n].best_step or 0, metrics, False)
            voters = [n for n, each in enumerate(state.standings) if each.status != "diverged" and splits[n]]
            if self.run.ensemble and len(voters) > 1:
                voted: list[dict[str, float]] = []
                yield from self._evaluator.vote([ballots[n] for n in voters], splits[voters[0]], voted)
                state.ensemble_metrics = voted[0]
            state.tested = True
            self.save()

    def _tell(self, n: int, split: Any, step: int, metrics: dict[str, float], best: bool) -> None:
        seconds = round(self._seconds(), 3)
        facts = {"step": step, "split": split, "metrics": metrics, "seconds": seconds}
        self.state.standings[n].evaluations.append(facts)
        self._events.append(Evaluated(step, n, split, metrics, best, seconds))

    def _stop(self, n: int, status: Any, message: str) -> None:
        self.state.standings[n].status, self.state.standings[n].message = status, message
        self._events.append(PromptStopped(self.state.step, n, status, message))


def _diverged(step: int, learning_rate: float) -> str:
    return (
        f"loss or gradient of step {step} is not a finite number; the values before it are kept. Lower "
        f"learning_rate (now {learning_rate:g}), add warmup_steps, or look for broken rows in the data"
    )
