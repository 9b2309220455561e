"""The loop: micro-batches, steps, measurements, checkpoints, milestones.

The state is always that after a whole step. The device is read when a line of the curve is due, not at each
step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np

from chorus_server.errors import InvalidInputError
from chorus_server.log import Say
from chorus_server.pretraining.checkpoints import Checkpoints, State
from chorus_server.pretraining.curve import Curve, ProgressReport
from chorus_server.pretraining.data.rows import Rows
from chorus_server.pretraining.objective import PretrainingBatch
from chorus_server.pretraining.prefetch import prefetched
from chorus_server.pretraining.programs import PretrainingPrograms, StepMetrics
from chorus_server.pretraining.settings import PretrainingSettings
from chorus_server.pretraining.sources import RowSource

Milestone = Callable[[State], None]
AHEAD = 4


@dataclass(frozen=True)
class Cadence:
    """How often things happen. It affects no number.

    Attributes:
        report_every_steps: how often to write a line of the curve and of progress.
        evaluate_every_steps: how often to measure the held-out slice; 0 only at the end.
        checkpoint_every_steps: how often to write a checkpoint; 0 leaves this to the minutes.
        checkpoint_every_minutes: the same by time; 0 leaves this to the steps.
        max_minutes: save and stop after this time; None never stops.
    """

    report_every_steps: int = 10
    evaluate_every_steps: int = 500
    checkpoint_every_steps: int = 0
    checkpoint_every_minutes: float = 5.0
    max_minutes: float | None = None


@dataclass
class Trainer:
    """One sitting of a run.

    Attributes:
        state: advanced in place.
        milestones: step -> what to do when this many steps are done. It must be safe to do again.
        stop: returns true once somebody asked the run to end.
        clock: gives monotonic seconds.
    """

    programs: PretrainingPrograms
    source: RowSource
    settings: PretrainingSettings
    cadence: Cadence
    state: State
    checkpoints: Checkpoints
    curve: Curve
    say: Say
    milestones: Mapping[int, Milestone] = field(default_factory=dict)
    stop: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic

    def run(self) -> Literal["finished", "stopped"]:
        """Train until the steps are done, the time is up, or somebody asks the run to end. The state is
        saved.

        Raises:
            InvalidInputError: the loss is no longer a number.
        """
        self.curve.cut(self.state.step)
        self._progress = ProgressReport(self.say, self.clock, self.settings.steps)
        self._began = self._sat = self._saved = self.clock()
        self._standings: list[StepMetrics] = []
        self._last: StepMetrics | None = None
        self._warm = False
        batches = prefetched(self._place, self._places(), AHEAD)
        try:
            finished = self._steps(batches)
        finally:
            batches.close()  # type: ignore[attr-defined]
        if finished:
            self._report()
            if self._last_measured() != self.state.step:
                self._evaluate()
        self._save()
        return "finished" if finished else "stopped"

    def _steps(self, batches: Any) -> bool:
        self._milestone()
        while self.state.step < self.settings.steps:
            if self.stop() or self._time_is_up():
                return False
            self._step(batches)
            self._due()
        return True

    def _step(self, batches: Any) -> None:
        state, programs = self.state, self.programs
        sums = programs.empty()
        for _ in range(self.settings.micro_batches):
            batch, tokens = next(batches)
            sums = programs.accumulate(state.tensors, sums, batch)
            state.tokens += tokens
        state.tensors, state.optimiser, standing = programs.apply(state.tensors, state.optimiser, sums)
        state.step += 1
        self._standings.append(standing)
        if not self._warm:  # compiling is not counted as speed
            standing.loss.block_until_ready()
            self._progress.start(state.step, state.tokens)
            self._warm = True

    def _due(self) -> None:
        step, cadence = self.state.step, self.cadence
        if step % cadence.report_every_steps == 0:
            self._report()
        if cadence.evaluate_every_steps and step % cadence.evaluate_every_steps == 0:
            self._evaluate()
        by_steps = cadence.checkpoint_every_steps and step % cadence.checkpoint_every_steps == 0
        minutes = cadence.checkpoint_every_minutes
        if by_steps or (minutes and self.clock() - self._saved >= 60 * minutes):
            self._save()
        self._milestone()

    def _read(self) -> None:
        """Wait for the steps dispatched so far and keep their results."""
        for standing in jax.device_get(self._standings):
            self.state.pending.append((float(standing.loss), float(standing.accuracy)))
        if self._standings:
            self._last = self._standings[-1]
        self._standings = []
        self._require_finite()

    def _report(self) -> None:
        """Write a line for all steps since the last one, including those of an earlier sitting."""
        self._read()
        state, last = self.state, self._last
        if last is None or not state.pending:
            return
        loss, accuracy = (float(np.mean(each)) for each in zip(*state.pending, strict=True))
        rate, norm = float(last.learning_rate), float(last.gradient_norm)
        speed = self._progress.tell(state.step, state.tokens, loss, accuracy, rate)
        self.curve.add(
            step=state.step, split="train", loss=loss, accuracy=accuracy, tokens=state.tokens,
            learning_rate=rate, gradient_norm=norm, tokens_per_second=speed,
        )  # fmt: skip
        state.pending = []

    def _evaluate(self) -> None:
        """Measure the held-out slice; its rows are always the same."""
        size = self.settings.micro_batch_size
        sums = np.zeros(4)
        for number in range(self.settings.evaluate_batches):
            batch = self.programs.place(self.source.rows("held_out", number, size))
            sums += np.array(jax.device_get(self.programs.measure(self.state.tensors, batch)), np.float64)
        loss, accuracy = sums[0] / sums[3], sums[2] / sums[3]
        self.curve.add(step=self.state.step, split="held_out", loss=loss, accuracy=accuracy)
        self.say(f"step {self.state.step:,}: held-out loss {loss:.4f}, accuracy {accuracy:.3f}")

    def _save(self) -> None:
        self._read()
        now = self.clock()
        self.state.seconds += now - self._sat
        self._sat = self._saved = now
        self.curve.sync()
        self.checkpoints.save(self.state)

    def _milestone(self) -> None:
        if self.state.step in self.milestones:
            self._read()
            self.milestones[self.state.step](self.state)

    def _places(self) -> Any:
        first = self.state.step * self.settings.micro_batches
        return range(first, self.settings.steps * self.settings.micro_batches)

    def _place(self, place: int) -> tuple[PretrainingBatch, int]:
        rows: Rows = self.source.rows("train", place, self.settings.micro_batch_size)
        return self.programs.place(rows), rows.tokens

    def _time_is_up(self) -> bool:
        minutes = self.cadence.max_minutes
        return minutes is not None and self.clock() - self._began >= 60 * minutes

    def _last_measured(self) -> int | None:
        measured = [line["step"] for line in self.curve.lines() if line["split"] == "held_out"]
        return measured[-1] if measured else None

    def _require_finite(self) -> None:
        if self.state.pending and not math.isfinite(self.state.pending[-1][0]):
            raise InvalidInputError(
                f"the loss is no longer a number at step {self.state.step:,} or shortly before; the last "
                "checkpoint is from before it. Choose a lower --learning-rate or a longer --warmup-steps",
                field="learning_rate",
            )
