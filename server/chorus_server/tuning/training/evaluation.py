"""Measures prompts on a split, one dispatch at a time, so that requests can be served in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chorus_server.quality.column_metrics import columns_of
from chorus_server.quality.metrics import legal_share, measure
from chorus_server.quality.mistakes import Mistakes
from chorus_server.quality.vote import Ballot, majority
from chorus_server.tuning.data.examples import Example
from chorus_server.tuning.training.packing import PlacedExample, pack_training_inputs, pack_training_targets
from chorus_server.tuning.training.programs import TuningPrograms
from chorus_server.tuning.training.run import PromptTask, TrainingRun

_Answered = tuple[Ballot, float | None]
"""An answer, and the loss of the right one, if it is known."""
_NOTHING: _Answered = (Ballot("", 0.0), None)
_VOTES_AT_ONCE = 1_000

Decode = Callable[..., str]
"""Ids -> text, without control ids and, but for `show_sentinels=True`, sentinels."""


@dataclass(frozen=True)
class Evaluator:
    """Measures the prompts of one job."""

    run: TrainingRun
    programs: TuningPrograms
    decode: Decode

    def measure(
        self,
        prompts: Any,
        splits: Sequence[Sequence[Example]],
        found: list[dict[str, float] | None],
        ballots: list[list[Ballot]] | None = None,
        mistakes: list[Mistakes | None] | None = None,
        split: str = "validation",
    ) -> Iterator[None]:
        """Measure each prompt on its split. Yields after each dispatch, and between the metrics of two
        prompts, which take as long as a dispatch if a split is large.

        Args:
            prompts: [N, P, D] f32.
            splits: one for each prompt; a prompt with an empty one is left out.
            found: gets each prompt's metrics; None if its split is empty.
            ballots: gets each prompt's answers in the order of its split, to be voted among.
            mistakes: gets each prompt's mistakes; None if its split is empty.
            split: what the splits are called in them.
        """
        said: list[list[_Answered]] = [[_NOTHING] * len(each) for each in splits]
        for labelled in (True, False):
            # The shortest first, so that dispatches of similar lengths take small rungs.
            places = sorted(
                (
                    (n, place)
                    for n, each in enumerate(splits)
                    if self.run.tasks[n].ranks == labelled
                    for place in range(len(each))
                ),
                key=lambda each: len(splits[each[0]][each[1]].input_ids),
            )
            rows = self.programs.shapes.evaluation_rows
            for start in range(0, len(places), rows):
                some = [(n, splits[n][place]) for n, place in places[start : start + rows]]
                answers = self._labels(prompts, some) if labelled else self._texts(prompts, some)
                for (n, place), answer in zip(places[start : start + rows], answers, strict=True):
                    said[n][place] = answer
                yield
        for n, (task, examples) in enumerate(zip(self.run.tasks, splits, strict=True)):
            if found and found[-1] is not None and examples:
                yield
            texts = [ballot.answer for ballot, _ in said[n]]
            found.append(_measured(task, examples, texts) if examples else None)
            if mistakes is not None:
                right = [example.answers for example in examples]
                losses = [loss for _, loss in said[n]]
                made = Mistakes.of(split, texts, losses, right, task.labels) if examples else None
                mistakes.append(made)
        if ballots is not None:
            ballots.extend([ballot for ballot, _ in each] for each in said)

    def score(
        self, prompts: Any, splits: Sequence[Sequence[Example]], found: list[list[list[float]]]
    ) -> Iterator[None]:
        """Log probabilities of the labels of each prompt that ranks them, on its split. Yields after each
        dispatch.

        Args:
            prompts: [N, P, D] f32.
            splits: one for each prompt; one that ranks no labels is left out, since the job may have no
                program for it.
            found: for each prompt a list with a place for each example, which gets its scores.
        """
        places = sorted(
            (
                (n, place)
                for n, split in enumerate(splits)
                if self.run.tasks[n].ranks
                for place in range(len(split))
            ),
            key=lambda each: len(splits[each[0]][each[1]].input_ids),
        )
        rows = self.programs.shapes.evaluation_rows
        for start in range(0, len(places), rows):
            some = places[start : start + rows]
            scores = self._scores(prompts, [(n, splits[n][place]) for n, place in some])
            for (n, place), row in zip(some, scores, strict=True):
                found[n][place] = row
            yield

    def vote(
        self, ballots: Sequence[Sequence[Ballot]], split: Sequence[Example], found: list[dict[str, float]]
    ) -> Iterator[None]:
        """Measure the vote of an ensemble's members, as `POST /v1/ensemble` holds it; of texts, ties go to
        the earlier member. Yields now and then.

        Args:
            ballots: of each member that has been measured, in order.
            found: gets the metrics.
        """
        said = []
        for place, each in enumerate(zip(*ballots, strict=True)):
            said.append(majority(each).answer)
            if place % _VOTES_AT_ONCE == 0:
                yield
        found.append(_measured(self.run.tasks[0], split, said))

    def _labels(self, prompts: Any, places: Sequence[PlacedExample]) -> list[_Answered]:
        """The most likely label of each example; of equal ones, the first."""
        scores = self._scores(prompts, places)
        found: list[_Answered] = []
        for (n, example), row in zip(places, scores, strict=True):
            labels, wanted = self.run.tasks[n].labels, example.answers[0].strip()
            right = next((at for at, label in enumerate(labels) if label.strip() == wanted), None)
            ballot = Ballot(labels[int(np.argmax(row))], max(row))
            found.append((ballot, None if right is None else -row[right]))
        return found

    def _scores(self, prompts: Any, places: Sequence[PlacedExample]) -> list[list[float]]:
        """Log probability of each label of each example's task."""
        shapes, programs = self.programs.shapes, self.programs
        ids, lengths = self._inputs(places)
        labels = np.zeros((len(ids), shapes.labels, shapes.label_length), np.int32)
        label_lengths = np.zeros((len(ids), shapes.labels), np.int32)
        for row, (n, _) in enumerate(places):
            packed, each = pack_training_targets(self.run.tasks[n].label_ids, shapes.label_length)
            labels[row, : len(each)], label_lengths[row, : len(each)] = packed, each
        scored = programs.score[ids.shape[1]](programs.params, prompts, ids, lengths, labels, label_lengths)
        scores = np.asarray(scored)
        tasks = [self.run.tasks[n] for n, _ in places]
        return [row[: len(task.labels)].tolist() for task, row in zip(tasks, scores, strict=False)]

    def _texts(self, prompts: Any, places: Sequence[PlacedExample]) -> list[_Answered]:
        """The greedy text of each example."""
        programs, eos = self.programs, self.programs.functions.config.eos_id
        ids, lengths = self._inputs(places)
        tokens = np.asarray(programs.greedy[ids.shape[1]](programs.params, prompts, ids, lengths)).tolist()
        texts: list[_Answered] = []
        for (n, _), row in zip(places, tokens, strict=False):
            recipe = self.run.tasks[n].recipe
            row = row[: recipe.max_target_tokens]
            shown = {"show_sentinels": True} if recipe.special_tokens else {}
            text = self.decode(row[: row.index(eos)] if eos in row else row, **shown)
            texts.append((Ballot(text, 0.0), None))
        return texts

    def _inputs(self, places: Sequence[PlacedExample]) -> tuple[Any, Any]:
        shapes = self.programs.shapes
        return pack_training_inputs(self.programs.vocab_rows, shapes, places, shapes.evaluation_rows)


def _measured(task: PromptTask, split: Sequence[Example], said: Sequence[str]) -> dict[str, float]:
    answers, columns = [example.answers for example in split], columns_of(split)
    found = measure(task.metrics, said, answers, task.labels, columns)
    if task.labels and not task.ranks:
        found["legal"] = legal_share(said, task.labels)
    return found
