"""The last stage of a job with seeds or a sweep: the best of its trials become versions."""

from __future__ import annotations

from typing import Any

from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.calibrate import calibrate
from chorus_server.tuning.jobs.stages.mistakes import mistakes_of, save_mistakes
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
from prompts_store.names import LIVE
from prompts_store.records import Reference


def publish_best(attempt: Attempt, search: Search) -> bool:
    """Measure the best trials on test, and make a version of the best seed of each; of the best trial last,
    so that it is the task's latest. To do it twice changes nothing.

    Returns:
        Whether there was one to publish: False if every seed of every trial diverged.

    Raises:
        LeaseLostError: another process has, or had, the job.
        StoreError: the disk or the database failed; another call goes on where this one stopped.
    """
    document = search.validated.document
    publish = 1 if document.sweep is None else document.sweep.publish
    able = [trial for trial in search.ranking() if trial.able]
    if not able:
        return False
    chosen = able[: max(1, publish)]
    wanted = {trial.number for trial in chosen[:publish]}
    prompts: list[dict[str, Any]] = []
    events: list[tuple[str, dict[str, Any]]] = []
    mistakes: dict[str, dict[str, Any] | None] = {}
    for part in search.parts(chosen):
        attempt.begin("publishing")
        attempt.held.check()
        made = _published(attempt, part, wanted, len(document.trials), mistakes)
        prompts = made + prompts
        events += [("published", found) for found in reversed(made) if "version" in found]
    _point_to_best(attempt, document, [each for each in prompts if "version" in each])
    references = dict.fromkeys(each["reference"] for each in prompts if "reference" in each)
    file = save_mistakes(attempt, [mistakes[reference] for reference in references])
    succeed(attempt, {**result_of_search(search), "prompts": prompts, "mistakes": file}, events)
    return True


def result_of_search(search: Search) -> dict[str, Any]:
    """What a search found of each recipe, the best first, without any versions."""
    return {"prompts": [], "ensemble": None, "trials": [_facts(trial) for trial in search.ranking()]}


def _point_to_best(attempt: Attempt, document: JobDocument, made: list[dict[str, Any]]) -> None:
    """Move `@live` to the best of the versions, if the job asks for it; or if another one that the job made
    has it, as the first version of a new task."""
    job, store = attempt.job, attempt.store
    promote(attempt, document, made[:1])
    for other in made[1:]:
        task = other["task"]
        if store.aliases(job.tenant, task).get(LIVE) == other["version"]:
            reference = Reference(job.tenant, task, other["version"], None)
            if store.resolve(reference, tenant=job.tenant).lineage.get("job") == job.id:
                best, lease = made[0]["version"], attempt.held.lease
                store.set_alias(job.tenant, task, LIVE, best, moved_by=job.created_by, lease=lease)


def _published(
    attempt: Attempt,
    part: Part,
    wanted: set[int],
    trials: int,
    mistakes: dict[str, dict[str, Any] | None],
) -> list[dict[str, Any]]:
    """Every seed of the chosen trials of a part, the best trial first, the best of those wanted with its
    version.

    Args:
        mistakes: gets those of each version, by its reference.
    """
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
    for trial in reversed(part.chosen):
        of_trial: list[dict[str, Any]] = []
        for at in trial.places:
            place = places[at]
            facts = facts_of(part.validated, part.state, place)
            facts |= {"prompt": at, "trial": trial.number}
            if place in best:
                sweep = part.validated.document.sweep
                told = _facts(trial) | {"trials": trials, "search": sweep and sweep.search}
                facts |= publish_one(
                    attempt, part.validated, part.run, part.state, place, fitted[place], told
                )
                line = mistakes_of(attempt, part.run, part.state, place, facts)
                mistakes[facts["reference"]] = line
            of_trial.append(facts)
        found = of_trial + found
    return found


def _facts(trial: Trial) -> dict[str, Any]:
    """A trial as the result and the lineage tell it; with mean and deviation of its metrics on each split."""
    return trial.to_json() | {"metrics": spread_by_name([metrics_of(each) for each in trial.standings])}
