"""The last stage of a job with seeds or a sweep: the best of its trials become versions."""

from __future__ import annotations

from typing import Any

from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.calibrate import calibrate
from chorus_server.tuning.jobs.stages.publish import (
    facts_of,
    is_good,
    metrics_of,
    promote,
    publish_one,
    succeed,
)
from chorus_server.tuning.jobs.stages.search import Part, Search
from chorus_server.tuning.jobs.stages.trials import Trial, spread_by_name
from chorus_server.tuning.training.state import PromptProgress


def publish_best(attempt: Attempt, search: Search) -> PromptProgress | None:
    """Measure the best trials on test, and make a version of the best seed of each. To do it twice changes
    nothing.

    Returns:
        None; or, if every seed of every trial diverged, how the first did.

    Raises:
        LeaseLostError: another process has, or had, the job.
        StoreError: the disk or the database failed; another call goes on where this one stopped.
    """
    document = search.validated.document
    publish = 1 if document.sweep is None else document.sweep.publish
    able = [
        trial for trial in search.ranking() if any(each.best_step is not None for each in trial.standings)
    ]
    able = [trial for trial in able if any(each.status != "diverged" for each in trial.standings)]
    if not able:
        return search.ranking()[0].standings[0]
    chosen = able[: max(1, publish)]
    wanted = {trial.number for trial in chosen[:publish]}
    prompts: list[dict[str, Any]] = []
    events: list[tuple[str, dict[str, Any]]] = []
    for part in search.parts(chosen):
        attempt.begin("publishing")
        attempt.held.check()
        made = _published(attempt, part, wanted, len(document.trials))
        prompts += made
        events += [("published", found) for found in made if "version" in found]
    promote(attempt, document, [each for each in prompts if "version" in each][:1])
    trials = [_facts(trial) for trial in search.ranking()]
    succeed(attempt, {"prompts": prompts, "ensemble": None, "trials": trials}, events)
    return None


def _published(attempt: Attempt, part: Part, wanted: set[int], trials: int) -> list[dict[str, Any]]:
    """Every seed of the chosen trials of a part, the best of those wanted with its version."""
    places = {at: place for place, at in enumerate(part.stretch.places)}
    best: dict[int, Trial] = {}
    for trial in part.chosen:
        seed = trial.best_seed([is_good(standing) for standing in trial.standings])
        if trial.number in wanted and seed is not None:
            best[places[trial.places[seed]]] = trial
    fitted = calibrate(
        attempt, part.run, part.programs, part.state.best, [n in best for n in range(len(part.run.tasks))]
    )
    found: list[dict[str, Any]] = []
    for trial in part.chosen:
        for at in trial.places:
            place = places[at]
            facts = facts_of(part.validated, part.state, place)
            facts |= {"prompt": at, "trial": trial.number}
            if place in best:
                sweep = part.validated.document.sweep
                of_trial = _facts(trial) | {"trials": trials, "search": sweep and sweep.search}
                facts |= publish_one(
                    attempt, part.validated, part.run, part.state, place, fitted[place], of_trial
                )
            found.append(facts)
    return found


def _facts(trial: Trial) -> dict[str, Any]:
    """A trial as the result and the lineage tell it; with mean and deviation of its metrics on each split."""
    return trial.to_json() | {"metrics": spread_by_name([metrics_of(each) for each in trial.standings])}
