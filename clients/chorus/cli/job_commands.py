"""Commands that jobs of every kind have, made for one kind or for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import click

from chorus.cli.job_following import DETACHED
from chorus.cli.output import clean, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.client import Client
from chorus.types import JobEvent
from chorus.types.tuning import AnyJob

STATUSES = ("queued", "preparing", "running", "succeeded", "failed", "cancelled")

Routes = Callable[[Client], Any]
"""The methods of a kind, such as `client.batches`."""


def list_command(
    routes: Routes,
    named: str,
    what: str,
    what_of: Callable[[Any], object],
    *,
    key: str = "",
    progress: str = "rows",
) -> click.Command:
    """`list`, newest first.

    Args:
        named: what a list of them is called.
        what: heading of what each is about, which `what_of` finds.
        key: of the list in JSON, if not its name.
        progress: heading of how far each is.
    """

    @click.command("list", help=f"List {named}, newest first.")
    @click.option("--status", type=click.Choice(STATUSES), help=f"Only {named} with this status.")
    @with_session
    def list_(session: Session, status: str | None) -> None:
        with session.client() as client:
            found = routes(client).list(status=status)
        if session.as_json:
            print_json({key or named: found})
            return
        rows = (
            (job.id, job.status, what_of(job), progress_of(job), job.created_at, job.created_by)
            for job in found
        )
        columns = ("job", "status", what, progress, "created", "by")
        print_table(columns, rows, empty=f"There are no {named}.")

    return list_


_STEERED = {
    "cancel": "Cancel JOB. What it has done is kept, so that it can be resumed.",
    "resume": "Queue JOB again after it failed or was cancelled.",
}


def steering_command(routes: Routes, verb: Literal["cancel", "resume"]) -> click.Command:
    """`cancel` or `resume`, without waiting for the job's end."""

    @click.command(verb, help=_STEERED[verb])
    @click.argument("job")
    @with_session
    def steer(session: Session, job: str) -> None:
        with session.client() as client:
            tell(session, getattr(routes(client), verb)(job))

    return steer


def tell(session: Session, job: AnyJob, advice: str = "") -> None:
    """Print a job's status.

    Args:
        advice: what to do next.
    """
    if session.as_json:
        print_json(job)
        return
    click.echo(f"{clean(job.id)} is {clean(job.status)}")
    if advice:
        click.echo(advice, err=True)


def follow_rows(session: Session, events: Any, again: str) -> None:
    """Tell how many rows are done, until the job is over. Ctrl-C leaves it running.

    Args:
        events: of the job, as the client follows them.
        again: the sentence for Ctrl-C.
    """
    try:
        with events as found:
            _tell_each(session, found)
    except KeyboardInterrupt:
        click.echo(f"\n{again}", err=True)
        raise SystemExit(DETACHED) from None


def _tell_each(session: Session, events: Iterable[JobEvent]) -> None:
    for event in events:
        tell_event(session, event)


def tell_event(session: Session, event: JobEvent) -> None:
    """A line for an event: its JSON, or how many rows are done."""
    if session.as_json:
        facts = {"seq": event.seq, "at": event.at.isoformat(), "data": event.data}
        print_json({"event": event.kind, **facts}, one_line=True)
    elif event.kind == "rows":
        click.echo(clean(f"{event.data.get('rows')} of {event.data.get('rows_in_all')} rows"), err=True)
    elif event.kind == "warning":
        click.echo(clean(f"warning: {event.data.get('message')}"), err=True)


def tell_ended(session: Session, ended: AnyJob) -> None:
    """Tell how a job ended. Exits with 1 if it did not succeed."""
    if session.as_json:
        print_json({"event": "done", "job": ended}, one_line=True)
    elif not ended.succeeded:
        why = error_of(ended) or ""
        click.echo(" ".join(clean(f"chorus: {ended.id} {ended.status} {why}").split()), err=True)
    if not ended.succeeded:
        raise SystemExit(1)


def error_of(job: AnyJob) -> str | None:
    """Why a job failed."""
    return None if job.error is None else f"{job.error.get('code')}: {job.error.get('message')}"


def progress_of(job: AnyJob) -> str | None:
    """How far a job is: `3 of 9`, in steps or rows."""
    for unit, in_all in (("step", "steps"), ("rows", "rows_in_all")):
        if job.progress.get(in_all) is not None and (unit == "rows" or job.progress.get(unit) is not None):
            return f"{job.progress.get(unit) or 0} of {job.progress[in_all]}"
    return None
