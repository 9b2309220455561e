"""The third stage of a job with seeds or a sweep: trains its trials, stretch after stretch, and chooses.

    for each rung:
        for each group of trials of one shape: train up to the rung, or read its state if an attempt did
        rank the trials by the mean of their seeds, and go on with the best

All that is known of a search is in the checkpoints of its stretches, so an attempt that comes after a kill
finds what is done, trains what is not, and chooses as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.job import MAX_PROMPTS
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.compile import compile_run, settled_sizes
from chorus_server.tuning.jobs.stages.sizing import Sizes
from chorus_server.tuning.jobs.stages.stretches import Stretch, groups
from chorus_server.tuning.jobs.stages.train import train
from chorus_server.tuning.jobs.stages.trials import Trial
from chorus_server.tuning.jobs.stages.validate import Validated
from chorus_server.tuning.jobs.stages.writer import newest_state
from chorus_server.tuning.training.programs import TuningPrograms
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.state import TrainingState

_TOO_MANY = ("memory_plan", "dispatch_too_long")
"""Why prompts do not train together that train apart."""


@dataclass(frozen=True)
class Part:
    """Trials that trained together, at the end of the search.

    Attributes:
        validated: the job with these members alone.
        chosen: the trials among them that were measured on the test split, the best first.
    """

    stretch: Stretch
    validated: Validated
    run: TrainingRun
    programs: TuningPrograms
    state: TrainingState
    chosen: tuple[Trial, ...]


@dataclass
class Search:
    """Looks for the best recipe of a job. Used by one thread.

    Attributes:
        validated: the whole job.
        trials: every trial as it stands.
    """

    attempt: Attempt
    validated: Validated
    trials: dict[int, Trial] = field(default_factory=dict, init=False)
    _newest: dict[int, tuple[TrainingState, int]] = field(default_factory=dict, init=False)
    _stretches: dict[int, Stretch] = field(default_factory=dict, init=False)
    _compiled: tuple[str, TrainingRun, TuningPrograms] | None = field(default=None, init=False)
    _known: tuple[object, dict[Any, Any]] = field(default=(None, {}), init=False)
    _trained: int = field(default=0, init=False)

    def run(self) -> None:
        """Train all trials, as far as each gets.

        Raises:
            InvalidInputError: what one prompt needs does not fit; see `compile_run`.
        """
        rungs = self.validated.document.rungs or (None,)
        alive = list(range(len(self.validated.document.trials)))
        self.attempt.warn(self.validated.warnings)
        for number, rung in enumerate(rungs):
            after = rungs[number + 1] if number + 1 < len(rungs) else None
            places = [place for trial in alive for place in self._places(trial)]
            self._climb(number, rung.steps if rung else None, places)
            for trial in alive:
                knobs = self.validated.document.trials[trial]
                self.trials[trial] = Trial.of(trial, knobs, self._places(trial), number, self._newest)
            ranked = sorted((self.trials[trial] for trial in alive), key=lambda each: each.rank, reverse=True)
            if after:
                ranked = [replace(each, goes_on=n < after.trials) for n, each in enumerate(ranked)]
                self.trials |= {each.number: each for each in ranked}
                alive = sorted(each.number for each in ranked if each.goes_on)
            self._tell(number, ranked)

    def ranking(self) -> list[Trial]:
        """All trials, the best first."""
        return sorted(self.trials.values(), key=lambda trial: trial.rank, reverse=True)

    def parts(self, chosen: Sequence[Trial]) -> Iterator[Part]:
        """Measure chosen trials on the test split, group by group; the group of the best comes last.

        Args:
            chosen: the best first.
        """
        by_stretch: dict[str, list[Trial]] = {}
        for trial in chosen:
            by_stretch.setdefault(self._stretches[trial.places[0]].name, []).append(trial)
        for trials in reversed(by_stretch.values()):
            yield self._tested(trials)

    def _places(self, trial: int) -> tuple[int, ...]:
        seeds = self.validated.document.seeds
        return tuple(range(trial * seeds, (trial + 1) * seeds))

    @property
    def _most(self) -> int:
        """How many prompts may share a dispatch; whole trials, unless it is less than one."""
        sweep, seeds = self.validated.document.sweep, self.validated.document.seeds
        most = MAX_PROMPTS if sweep is None else sweep.together
        most = min(most, int(self.attempt.settled.get("together", most)))
        return most - most % seeds if most >= seeds else most

    def _climb(self, rung: int, steps: int | None, places: Sequence[int]) -> None:
        """Train the prompts at these places up to a rung."""
        left = list(places)
        while left:
            most = self._trained_together(rung, left[0]) or self._most
            group = groups(self.validated.members, left, most)[0]
            try:
                self._train(rung, steps, group)
            except InvalidInputError as error:
                if error.code not in _TOO_MANY or len(group) == 1:
                    raise
                settled = {**self.attempt.settled, "together": max(1, len(group) // 2)}
                self.attempt.progress["settled"] = settled
                self.attempt.warn([f"{len(group)} prompts do not train together: {error.message}"])
                continue
            left = [place for place in left if place not in group]

    def _trained_together(self, rung: int, first: int) -> int | None:
        """How many prompts an earlier attempt trained with this one in this rung: other groups may have shown
        since then that fewer fit."""
        before = _name(rung, first, "")
        names = self.attempt.settled.get("sizes_by_stretch", {})
        return next((int(name.removeprefix(before)) for name in names if name.startswith(before)), None)

    def _train(self, rung: int, steps: int | None, group: tuple[int, ...]) -> None:
        attempt, only = self.attempt, self.validated.only(group)
        before = [self._newest[place] for place in group] if rung else []
        begin = TrainingState.of(before) if before else None
        stretch = Stretch(
            name=_name(rung, group[0], len(group)),
            places=group,
            begin=begin.step if begin else 0,
            until=steps or only.members[0].recipe.steps,
            tested=(),
            trained_before=self._trained,
            steps_of_job=self.validated.document.training_steps,
        )
        state = self._finished(stretch, only)
        if state is None:
            run, programs = self._programs(stretch, only, self._sizes_before(group, bool(before)))
            state = train(attempt, only, run, programs, stretch, begin)
        self._trained = stretch.training_steps_at(state.step)
        for place, at in enumerate(group):
            self._newest[at], self._stretches[at] = (state, place), stretch

    def _finished(self, stretch: Stretch, only: Validated) -> TrainingState | None:
        """The last state of a stretch that an earlier attempt finished."""
        sizes = settled_sizes(self.attempt, stretch.name)
        if sizes is None:
            return None
        run, mesh = only.run(sizes.micro_batch_size), self.attempt.base.functions.mesh
        state, _ = newest_state(self.attempt.folder / stretch.name, run, mesh)
        if state is None or state.evaluated_step < state.step:
            return None
        return state if state.step == stretch.until or not any(state.active) else None

    def _sizes_before(self, group: tuple[int, ...], goes_on: bool) -> Sizes | None:
        """Of the first prompt's last stretch: with the same micro-batches, sums go on as they were. Of new
        prompts, those of as many of the same shape."""
        if goes_on:
            return settled_sizes(self.attempt, self._stretches[group[0]].name)
        members, shape = self.validated.members, self.validated.members[group[0]].recipe.shape
        for stretch in self._stretches.values():
            if len(stretch.places) == len(group) and members[stretch.places[0]].recipe.shape == shape:
                return settled_sizes(self.attempt, stretch.name)
        return None

    def _programs(
        self, stretch: Stretch, only: Validated, sizes: Sizes | None = None
    ) -> tuple[TrainingRun, TuningPrograms]:
        if self._compiled is None or self._compiled[0] != stretch.name:
            shape = only.members[0].recipe.shape
            self._compiled = None  # before others take their memory
            self._known = self._known if self._known[0] == shape else (shape, {})
            compiled = compile_run(self.attempt, only, stretch.name, sizes, self._known[1])
            self._compiled = (stretch.name, *compiled)
        return self._compiled[1:]

    def _tested(self, trials: Sequence[Trial]) -> Part:
        before, stretch = self._newest[trials[0].places[0]][0], self._stretches[trials[0].places[0]]
        only = self.validated.only(stretch.places)
        wanted = {place for trial in trials for place in trial.places}
        tested = tuple(n for n, place in enumerate(stretch.places) if place in wanted)
        stretch = replace(stretch, tested=tested, begin=before.step, trained_before=self._trained)
        run, programs = self._programs(stretch, only)
        state = train(self.attempt, only, run, programs, stretch)
        newest = {at: (state, place) for place, at in enumerate(stretch.places)}
        chosen = tuple(
            replace(Trial.of(each.number, each.knobs, each.places, each.rung, newest), goes_on=each.goes_on)
            for each in trials
        )
        self.trials |= {trial.number: trial for trial in chosen}
        return Part(stretch, only, run, programs, state, chosen)

    def _tell(self, rung: int, ranked: Sequence[Trial]) -> None:
        """Say once how each trial of a rung stands, the best first; and whether it goes on, if any do."""
        if self.attempt.progress.get("rungs_done", 0) > rung:
            return
        self.attempt.progress["rungs_done"] = rung + 1
        events: list[tuple[str, dict[str, Any]]] = []
        for trial in ranked:
            kept = {} if trial.goes_on is None else {"kept": trial.goes_on}
            events.append(("trial", trial.to_json() | kept))
        self.attempt.held.tell(events)


def _name(rung: int, first: int, prompts: int | str) -> str:
    """What tells a group from the others of its rung is its first prompt, and how many they are."""
    return f"rung-{rung}-prompts-{first}-{prompts}"
