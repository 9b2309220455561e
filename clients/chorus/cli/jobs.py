"""`chorus jobs`: tuning jobs, evaluations, calibrations and batches together."""

from __future__ import annotations

import click

from chorus.cli.job_commands import (
    STATUSES,
    error_of,
    follow_rows,
    progress_of,
    steering_command,
    tell_ended,
)
from chorus.cli.job_following import follow_to_end
from chorus.cli.output import print_facts, print_json, print_table
from chorus.cli.session import Session, with_session

KINDS = ("tuning", "evaluation", "calibration", "batch")


@click.group(short_help="Look after jobs of every kind.")
def jobs() -> None:
    """Look after tuning jobs, evaluations, calibrations and batches together.

    \b
    chorus jobs list --status running
    chorus jobs follow JOB

    What only one kind has is with its own commands: `chorus tune`, `evaluate`, `calibrate`, `batch`.
    """


@jobs.command("list")
@click.option("--kind", type=click.Choice(KINDS), help="Only jobs of this kind.")
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs with this status.")
@with_session
def list_(session: Session, kind: str | None, status: str | None) -> None:
    """List jobs, newest first."""
    with session.client() as client:
        found = client.jobs.list(kind=kind, status=status)
    if session.as_json:
        print_json({"jobs": found})
        return
    rows = ((job.id, job.kind, job.status, progress_of(job), job.created_at, job.created_by) for job in found)
    print_table(("job", "kind", "status", "done", "created", "by"), rows, empty="There are no jobs.")


@jobs.command()
@click.argument("job")
@with_session
def show(session: Session, job: str) -> None:
    """Show JOB: what it is, how far it is, what it made."""
    with session.client() as client:
        found = client.jobs.get(job)
    if session.as_json:
        print_json(found)
        return
    facts: dict[str, object] = {
        "job": found.id,
        "kind": found.kind,
        "status": f"{found.status}{', paused' if found.paused else ''}",
        "done": progress_of(found),
        "created": found.created_at,
        "started": found.started_at,
        "finished": found.finished_at,
        "attempt": found.attempt,
    }
    if (error := error_of(found)) is not None:
        facts["error"] = error
    print_facts(facts)


@jobs.command()
@click.argument("job")
@with_session
def follow(session: Session, job: str) -> None:
    """Show JOB until it is over. Ctrl-C leaves it running. Exits with 1 if it failed or was cancelled."""
    with session.client() as client:
        found = client.jobs.get(job)
        if found.kind == "tuning":
            follow_to_end(session, client, client.tuning.get(job))
            return
        again = f"{found.id} goes on by itself: chorus jobs follow {found.id}"
        follow_rows(session, client.jobs.events(found), again)
        tell_ended(session, client.jobs.get(job))


jobs.add_command(steering_command(lambda client: client.jobs, "cancel"))
jobs.add_command(steering_command(lambda client: client.jobs, "resume"))
