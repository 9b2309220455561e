"""Runs one attempt at a job, stage after stage. Used by one thread.

    validate  fetch, read, check, tokenise
    compile   measure how large a dispatch may be, and compile off the device's thread
    train     slices on the device's thread, checkpoints on the writer's
    publish   calibrations, versions, ensemble, aliases

A job with seeds or a sweep compiles and trains in stretches, and then publishes the best.

A stage is a function of the attempt and of what the stages before it found.
"""

from __future__ import annotations

import shutil

from chorus_server.jobs.endings import AttemptEnding, count_attempt, end_job, run_to_end
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.choose import publish_best, result_of_search
from chorus_server.tuning.jobs.stages.compile import compile_run
from chorus_server.tuning.jobs.stages.publish import is_good, publish, result_of
from chorus_server.tuning.jobs.stages.search import Search
from chorus_server.tuning.jobs.stages.train import train
from chorus_server.tuning.jobs.stages.validate import Validated, validate
from chorus_server.tuning.jobs.worker.failures import diverged, tuning_failure_of


def make_attempt(attempt: Attempt) -> AttemptEnding:
    """Run the job as far as it gets. Never raises."""
    ending = run_to_end(attempt.held, attempt.progress, lambda: _stages(attempt), tuning_failure_of)
    if ending in ("failed", "cancelled"):
        # Not earlier: another process might have taken the job over. Checkpoints stay for a resumption;
        # downloads can be fetched again.
        shutil.rmtree(attempt.folder / "downloads", ignore_errors=True)
    return ending


def _stages(attempt: Attempt) -> AttemptEnding:
    count_attempt(attempt.progress, attempt.progress.get("checkpoint_step", 0), "step")
    validated = validate(attempt, attempt.document())
    if validated.document.searches:
        return _search(attempt, validated)
    run, programs = compile_run(attempt, validated)
    state = train(attempt, validated, run, programs)
    if not any(map(is_good, state.standings)):
        result = result_of(validated, state)
        record = diverged(next(each for each in state.standings if each.status == "diverged"))
        return end_job(attempt.held, attempt.progress, "failed", record, result)
    publish(attempt, validated, run, programs, state)
    return "succeeded"


def _search(attempt: Attempt, validated: Validated) -> AttemptEnding:
    search = Search(attempt, validated)
    search.run()
    if publish_best(attempt, search):
        return "succeeded"
    standings = (standing for trial in search.ranking() for standing in trial.standings)
    record = diverged(next(each for each in standings if each.status == "diverged"))
    return end_job(attempt.held, attempt.progress, "failed", record, result_of_search(search))
