"""Finds how large a device dispatch may be: compiles candidates, and measures them on the device's thread.

The longest rung is measured. It gets the most rows, a power of two that divides the batch, whose dispatch
takes no longer than a slice, and at least one example of each prompt for each group of devices. From that
follow, without another compile, the tokens that fit into a slice, and so the rows of shorter rungs and of
evaluation. From then on all sizes are fixed, because sums depend on them. A job that goes on on more or fewer
devices keeps what each device has to do in a dispatch; the bits differ on another mesh anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chorus_server.errors import InvalidInputError
from chorus_server.jobs.slices import DeviceWork
from chorus_server.tuning.data.examples import Example
from chorus_server.tuning.jobs.attempts.config import TuningBase
from chorus_server.tuning.jobs.stages.durations import check_durations, operations
from chorus_server.tuning.jobs.stages.memory import check_memory
from chorus_server.tuning.training.evaluation import Evaluator
from chorus_server.tuning.training.objective import LossConfig
from chorus_server.tuning.training.packing import pack_batch
from chorus_server.tuning.training.programs import TuningPrograms, compile_programs, empty_sums, table
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.shapes import TrainingShapes, rows_within, shapes_for

_REPEATS = 3
_HOPE = 1.6
"""Twice the rows may take only so many times as long: if that would fit, a long job tries them."""
_SHORT = 30.0
"""A job is short if it would train for at most so many seconds were every input the longest: more rows would
hardly save the time that it takes to compile another candidate."""
_ENOUGH = 0.125
"""In a short job one row is enough if it fills this share of a slice."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of dispatches.

    Attributes:
        micro_batch_size: examples of each prompt in a training dispatch of short inputs.
        evaluation_rows: rows of an evaluation dispatch.
        dispatch_tokens: see `shapes_for`; None if every training dispatch has the same rows.
        devices: on how many they were found.
    """

    micro_batch_size: int
    evaluation_rows: int
    dispatch_tokens: int | None = None
    devices: int = 1


@dataclass
class Sizer:
    """Finds the sizes of one job and compiles its programs.

    Attributes:
        job: makes the run for a micro-batch size.
        batch_size: examples of a prompt in each step.
        turns: runs slices on the device.
        slice_seconds: longest dispatch to aim for.
        longest_seconds: the job is refused if even its smallest dispatch takes longer; None refuses none.
        compiled: called with the name of each program, the seconds that its compile took, and whether it was
            only compiled to be measured.
        interrupt: called between steps of the search; what it raises ends the search.
        known: programs that need no compile, by what `compile_programs` knows them by; gets all others.
    """

    base: TuningBase
    job: Callable[[int], TrainingRun]
    batch_size: int
    turns: DeviceWork
    slice_seconds: float
    longest_seconds: float | None
    compiled: Callable[[str, float, bool], None]
    interrupt: Callable[[], None]
    known: dict[Any, Any] = field(default_factory=dict)
    _speed: float | None = field(default=None, init=False)

    def settle(
        self, wanted: int | None, settled: Sizes | None
    ) -> tuple[TrainingRun, TuningPrograms, Sizes, list[str]]:
        """The job, its programs, the sizes, and warnings.

        Args:
            wanted: the recipe's micro-batch size, if it has one.
            settled: sizes from an earlier attempt at the job; they are kept on as many devices as then.

        Raises:
            InvalidInputError: `memory_plan`: even the smallest dispatch does not fit beside what is resident;
                `dispatch_too_long`: even the smallest dispatch takes too long.
        """
        if settled is None and wanted is None:
            return self._settle_by_time()
        if settled is not None and wanted is None and settled.devices != self.base.functions.devices:
            return self._settle_on_others(settled)
        size = settled.micro_batch_size if settled else wanted
        assert size is not None
        rows, tokens = (settled.evaluation_rows, settled.dispatch_tokens) if settled else (None, None)
        return self._settled(size, rows, tokens, [])

    def _settle_by_time(self) -> tuple[TrainingRun, TuningPrograms, Sizes, list[str]]:
        warnings: list[str] = []
        longest_rows, seconds = self._search()
        if seconds > self.slice_seconds:
            warnings.append(self._too_long("the smallest training dispatch", seconds))
        lengths = shapes_for(self.job(1)).input_lengths
        # Less than twice: more rows of the longest rung take too long, or are not worth a compile.
        tokens = int(min(self.slice_seconds / seconds, 1.99) * longest_rows * lengths[-1])
        size = rows_within(tokens, lengths[0], self._largest)
        job = self.job(size)
        rows, seconds = self._evaluation_rows(job)
        if seconds > self.slice_seconds:
            warnings.append(self._too_long(f"an evaluation dispatch of {rows} rows", seconds))
        try:
            return self._settled(size, rows, tokens, warnings)
        except InvalidInputError:  # hundreds of labels a row: with fewer rows it fits, and ends in time
            if rows == self._groups and size == longest_rows:
                raise
            return self._settled(longest_rows, self._groups, None, warnings)

    def _settle_on_others(self, settled: Sizes) -> tuple[TrainingRun, TuningPrograms, Sizes, list[str]]:
        """Each device gets as many tokens as each had, or fewer if these do not fit. The micro-batch size
        stays, since a checkpoint is of one: as the most rows that a dispatch has."""
        size, devices = settled.micro_batch_size, self.base.functions.devices
        shortest = shapes_for(self.job(size)).input_lengths[0]
        tokens = (settled.dispatch_tokens or size * shortest) * devices // settled.devices
        rows = max(settled.evaluation_rows * devices // settled.devices, self._groups)
        while True:
            try:
                return self._settled(size, rows, tokens, [])
            except InvalidInputError:
                if rows == self._groups and rows_within(tokens, shortest, size) == rows_within(0, 1, size):
                    raise
                rows, tokens = max(rows // 2, self._groups), tokens // 2

    def _settled(
        self, size: int, rows: int | None, tokens: int | None, warnings: list[str]
    ) -> tuple[TrainingRun, TuningPrograms, Sizes, list[str]]:
        job = self.job(size)
        shapes = shapes_for(job, evaluation_rows=rows, dispatch_tokens=tokens, groups=self._groups)
        programs = self._compile(job, shapes, measuring=False)
        return (
            job,
            programs,
            Sizes(size, shapes.evaluation_rows, tokens, self.base.functions.devices),
            warnings,
        )

    @property
    def _groups(self) -> int:
        return self.base.functions.groups

    @property
    def _largest(self) -> int:
        """The largest power of two that divides the batch."""
        return self.batch_size & -self.batch_size

    def _search(self) -> tuple[int, float]:
        """The largest candidate that is short enough, and its seconds. In a short job fewer are tried."""
        candidates = list(_powers_of_two(self._largest))
        # Fewer examples than groups leave some without one, and save no time.
        candidates = [size for size in candidates if size >= self._groups] or candidates[-1:]
        best = candidates[0]
        seconds = self._training_seconds(best)
        short = seconds * self.batch_size / best * self.job(1).recipe.steps <= _SHORT
        if short and seconds >= self.slice_seconds * _ENOUGH:
            return best, seconds
        place = max(
            (n for n, size in enumerate(candidates) if seconds * size / best <= self.slice_seconds), default=0
        )
        tried = {0}
        while place not in tried:
            tried.add(place)
            found = self._training_seconds(candidates[place])
            if found <= self.slice_seconds:
                best, seconds = candidates[place], found
                hopeful = place + 1 < len(candidates) and found * _HOPE <= self.slice_seconds
                place += hopeful and not short
            else:
                place -= 1
        return best, seconds

    def _training_seconds(self, size: int) -> float:
        """Of one dispatch at the longest rung; infinite if it does not fit into memory."""
        self.interrupt()
        job = self.job(size)
        shapes = shapes_for(job, evaluation_rows=1, groups=self._groups)
        only = replace(shapes.longest_rung, labels=0, label_length=0, new_tokens=0)
        try:
            programs = self._compile(job, only)
        except InvalidInputError:
            if size <= self._groups:
                raise
            return float("inf")
        seconds = self._measure_training(job, programs)
        self._speed = operations(programs.accumulate[only.input_lengths[0]]) / max(seconds, 1e-9)
        return seconds

    def _measure_training(self, job: TrainingRun, programs: TuningPrograms) -> float:
        shapes, size = programs.shapes, job.micro_batch_size
        # So many of the shortest example always fit; what rows hold does not change the time.
        lengths = [[len(example.input_ids) for example in task.train] for task in job.tasks]
        rows = [[each.index(min(each))] * size for each in lengths]
        batch = pack_batch(programs.vocab_rows, shapes, job, 0, rows, shapes.input_lengths[-1])
        prompts = jnp.asarray(np.stack([task.initial for task in job.tasks]))
        loss = LossConfig(np.float32(job.recipe.dropout_rate), np.float32(job.recipe.z_loss))
        program = programs.accumulate[shapes.input_lengths[-1]]

        def dispatch() -> None:
            sums = program(programs.params, prompts, empty_sums(shapes), batch, loss)
            jax.block_until_ready(sums)  # type: ignore[no-untyped-call]

        return self._measure(dispatch)

    def _operations_a_second(self) -> float:
        """Speed of the smallest training dispatch there is: one prompt, one row, one token of text."""
        if self._speed is None:
            task = self.job(1).tasks[0]
            row = Example(1, (self.base.vocabulary.eos_id,), (self.base.vocabulary.eos_id,), ("",))
            plain = replace(task, validation=(), test=(), metrics=("accuracy",), labels=(), label_ids=())
            job = TrainingRun(0, (replace(plain, train=(row,)),))
            shapes = replace(shapes_for(job, evaluation_rows=1, groups=self._groups), new_tokens=0)
            programs = self._compile(job, shapes, checked=False)
            done = operations(programs.accumulate[shapes.input_lengths[-1]])
            self._speed = done / max(self._measure_training(job, programs), 1e-9)
        return self._speed

    def _evaluation_rows(self, job: TrainingRun) -> tuple[int, float]:
        """Rows of an evaluation dispatch, and its seconds: as many as a slice has time for."""
        rows = len(job.tasks) * job.micro_batch_size
        most = max((len(task.validation) + len(task.test) for task in job.tasks), default=0)
        if not most:
            return rows, 0.0
        one = self._foretold(job) if all(task.ranks for task in job.tasks) else None
        if one is not None:
            found = _power_below(min(int(self.slice_seconds / one), 4 * rows, most))
            return found, found * one
        try:
            seconds = self._evaluation_seconds(job, rows)
        except InvalidInputError:  # with fewer rows it fits, and ends in time
            if rows <= self._groups:
                raise
            rows, seconds = self._groups, self._evaluation_seconds(job, self._groups)
        wanted = _power_below(min(int(rows * self.slice_seconds / seconds), 4 * rows, most))
        if wanted == rows:
            return rows, seconds
        found_seconds = self._evaluation_seconds(job, wanted)
        if found_seconds > self.slice_seconds and wanted > self._groups:
            return wanted // 2, found_seconds / 2
        return wanted, found_seconds

    def _foretold(self, job: TrainingRun) -> float | None:
        """Seconds to score the labels of one row, estimated from its operations and the speed of training: a
        row's share of those of all groups, which score as many at once."""
        only = shapes_for(job, evaluation_rows=1, groups=self._groups).longest_rung
        functions, params = self.base.functions, self.base.params
        for program in table(functions, params, only, dropping=False, training=False):
            if program.name.startswith("score"):
                # Before XLA divides them among devices; their speed is that of one.
                every = operations(program.jit().lower(*program.arguments))
                each = every / only.evaluation_rows / functions.devices
                return each / self._operations_a_second() or None
        return None

    def _evaluation_seconds(self, job: TrainingRun, rows: int) -> float:
        self.interrupt()
        only = shapes_for(job, evaluation_rows=rows, groups=self._groups).longest_rung
        programs = self._compile(job, only, training=False)
        prompts = jnp.asarray(np.stack([task.initial for task in job.tasks]))
        evaluator = Evaluator(job, programs, lambda ids: "")
        splits = [_longest(task.validation or task.test, rows) for task in job.tasks]

        def dispatch() -> None:
            for _ in islice(evaluator.measure(prompts, splits, []), 1):
                pass

        return self._measure(dispatch)

    def _measure(self, dispatch: Callable[[], None]) -> float:
        """The shortest of a few dispatches after one to warm up; each is a slice of its own.

        On a CPU, time that other processes take does not count: sizes are kept for the whole job, and a
        machine that is busy for a second must not make its dispatches small for hours.
        """
        times: list[float] = []
        on_cpu = jax.default_backend() == "cpu"

        def piece() -> bool:
            started, worked = time.perf_counter(), time.process_time()
            dispatch()
            passed, work = time.perf_counter() - started, time.process_time() - worked
            times.append(max(min(passed, work) if on_cpu else passed, 1e-9))
            return len(times) > _REPEATS

        self.turns.start(piece)
        try:
            while not self.turns.wait(0.5):
                self.interrupt()
        finally:
            self.turns.stop(60.0)
        return min(times[1:])

    def _compile(
        self,
        job: TrainingRun,
        shapes: TrainingShapes,
        *,
        training: bool = True,
        measuring: bool = True,
        checked: bool = True,
    ) -> TuningPrograms:

        def progress(name: str, seconds: float) -> None:
            self.compiled(name, seconds, measuring)
            self.interrupt()

        empty_sums(shapes)  # compiles its zeros here, not on the device's thread
        programs = compile_programs(
            self.base.functions,
            self.base.params,
            shapes,
            dropping=job.recipe.dropout_rate > 0,
            training=training,
            progress=progress,
            known=self.known,
        )
        check_memory(programs, self.base.memory_room)
        if checked and self.longest_seconds is not None:
            check_durations(
                programs, self.longest_seconds, self._operations_a_second, "recipe.max_input_tokens"
            )
        return programs

    def _too_long(self, what: str, seconds: float) -> str:
        return (
            f"{what} takes {1000 * seconds:.0f} ms, more than the {1000 * self.slice_seconds:.0f} of "
            "tuning_slice_ms: a request may wait that long while the job runs; to shorten it, give shorter "
            "inputs or train fewer prompts at once"
        )


def _powers_of_two(most: int) -> Iterator[int]:
    size = 1
    while size <= most:
        yield size
        size *= 2


def _power_below(most: int) -> int:
    """The largest power of two of at most `most`; at least 1."""
    return 1 << max(0, most.bit_length() - 1)


def _longest(split: Any, count: int) -> tuple[Example, ...]:
    """The longest examples of a split, repeated if it has fewer than `count`."""
    ordered = sorted(split, key=lambda example: -len(example.input_ids))[:count]
    return tuple(ordered[n % len(ordered)] for n in range(count)) if ordered else ()
