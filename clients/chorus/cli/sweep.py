"""`chorus sweep`: search among recipes, and look at what a search found."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from chorus.cli import tune_jobs
from chorus.cli.output import print_json
from chorus.cli.session import Session, with_session
from chorus.cli.spaces import knob_values
from chorus.cli.start_group import StartGroup
from chorus.cli.sweep_tables import print_trials
from chorus.cli.tune_options import document_of, job_options, pairs
from chorus.cli.tune_start import begin
from chorus.errors import InvalidArgumentError
from chorus.types import JobEvent


@click.group(cls=StartGroup, short_help="Search for the best recipe, and look at searches.")
def sweep() -> None:
    """Try several recipes on the same data, and make a version of the best.

    \b
    chorus sweep sst2 train.tsv --label negative --label positive --seeds 3 \\
        --space learning_rate=0.1,0.3,1 --space prompt_length=5,20 --recipe steps=1000
    chorus sweep sst2 train.tsv --search halving --named table6 --count 27 --recipe steps=2700
    chorus sweep --document sweep.json --count 9

    For rungs and trials of your own, which have no options, write the part `sweep` of a --document.

    `chorus sweep TASK TRAIN` is short for `chorus sweep start TASK TRAIN`.
    """


@sweep.command()
@click.argument("task", required=False)
@click.argument("train", required=False)
@click.option(
    "--search",
    type=click.Choice(["grid", "random", "halving"]),
    help="Every combination; some drawn; or some drawn of which the best train on. [default: grid]",
)
@click.option(
    "--space",
    "spaces",
    multiple=True,
    metavar="KNOB=VALUES",
    help="Values of a knob, as in learning_rate=0.1,0.3, or 0.01..1 for all between; repeat.",
)
@click.option("--named", type=click.Choice(["table6"]), help="The space of the paper's Table 6.")
@click.option("--count", type=int, help="How many recipes to draw.")
@click.option("--eta", type=int, help="Halving: one recipe in so many trains on. [default: 3]")
@click.option("--together", type=int, help="Most prompts that train in one dispatch. [default: 64]")
@click.option("--publish", type=int, help="How many of the best trials become versions. [default: 1]")
@job_options
@click.option("--follow/--detach", default=True, help="Show the job until it is over. [default: follow]")
@with_session
def start(
    session: Session,
    task: str | None,
    train: str | None,
    document: Path | None,
    follow: bool,
    spaces: tuple[str, ...],
    **given: Any,
) -> None:
    """Try several recipes for TASK on TRAIN and follow the search. Ctrl-C leaves it running.

    It is a tuning job, and takes the data, and all other options, of `chorus tune start`.
    """
    names = ("search", "named", "count", "eta", "together", "publish")
    searched = {name: value for name in names if (value := given.pop(name)) is not None}
    if spaces:
        searched["space"] = space_of(spaces)
    if searched:
        _check_trials(document, searched)
        given["sweep"] = searched
    elif document is None:
        raise click.UsageError("Say what varies: give --space or --named.")
    begin(session, task, train, document, follow, given)


@sweep.command()
@click.argument("job")
@with_session
def show(session: Session, job: str) -> None:
    """Show what the search JOB found of each recipe, the best first; of one that is not over, so far."""
    with session.client() as client:
        found = client.tuning.get(job)
        trials = found.result.get("trials") or _told(client.tuning.past_events(job))
    if session.as_json:
        print_json(found)
    elif trials:
        print_trials(trials)
    elif found.succeeded:
        click.echo(f"{found.id} has no trials: it has neither seeds nor a sweep.")
    else:
        click.echo(f"{found.id} is {found.status}, and has no trials yet.")


def _check_trials(document: Path | None, searched: dict[str, Any]) -> None:
    """Raise UsageError if the document has the trials, so that options of a search would do nothing."""
    written = document_of(document).get("sweep") if document is not None else None
    ignored = [f"--{name}" for name in ("space", "named", "count") if name in searched]
    if ignored and isinstance(written, dict) and written.get("trials"):
        raise click.UsageError(
            f"The sweep of {document} has its own trials, so nothing is searched for: leave out "
            f"{' and '.join(ignored)}, or take its trials out."
        )


def _told(events: Iterable[JobEvent]) -> list[dict[str, Any]]:
    """The trials of a search without a result, as its events tell of each last: those of the last rung first.
    In a rung the best comes first."""
    latest: dict[int, dict[str, Any]] = {}
    for event in events:
        if event.kind == "trial":
            latest.pop(event.data["trial"], None)  # so that the last told is the last
            latest[event.data["trial"]] = event.data
    return sorted(latest.values(), key=lambda data: -data["steps"])


def space_of(options: Iterable[str]) -> dict[str, Any]:
    """The space of a job document, of options such as `learning_rate=0.1,0.3`; see `knob_values`.

    Raises:
        UsageError: an option is not of this form.
    """
    try:
        return knob_values(pairs(options, "--space"))
    except InvalidArgumentError as error:
        raise click.UsageError(f"--space {error}") from None


for command in (tune_jobs.follow, tune_jobs.cancel, tune_jobs.pause, tune_jobs.resume):
    sweep.add_command(command)
