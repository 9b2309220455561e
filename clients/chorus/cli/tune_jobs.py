"""`chorus tune follow`, `list`, `show`, `mistakes`, `cancel`, `pause`, `resume`: what is done with jobs."""

from __future__ import annotations

import click

from chorus.cli.evaluation_tables import print_confusion
from chorus.cli.job_commands import error_of, list_command, progress_of
from chorus.cli.job_following import follow_to_end
from chorus.cli.output import clean, print_facts, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.types import Job


@click.command()
@click.argument("job")
@with_session
def follow(session: Session, job: str) -> None:
    """Show JOB from its first event until it is over. Ctrl-C leaves it running.

    Exits with 1 if the job failed or was cancelled.
    """
    with session.client() as client:
        follow_to_end(session, client, client.tuning.get(job))


list_ = list_command(lambda client: client.tuning, "jobs", "tasks", lambda job: job.tasks, progress="step")


@click.command()
@click.argument("job")
@with_session
def show(session: Session, job: str) -> None:
    """Show JOB: what it does, how far it is, what it made."""
    with session.client() as client:
        found = client.tuning.get(job)
    if session.as_json:
        print_json(found)
        return
    asked = ", cancel requested" if found.cancel_requested and not found.over else ""
    asked += ", paused" if found.paused else ""
    facts: dict[str, object] = {
        "job": found.id,
        "status": f"{found.status}{asked}",
        "tasks": found.tasks,
        "step": progress_of(found),
        "created": found.created_at,
        "started": found.started_at,
        "finished": found.finished_at,
        "attempt": found.attempt,
        "seed": found.spec.get("seed"),
        "base": found.spec.get("base_fingerprint"),
        "versions": [
            prompt["reference"] for prompt in found.result.get("prompts") or [] if "reference" in prompt
        ],
    }
    if found.result.get("mistakes"):
        facts["mistakes"] = found.result["mistakes"]
    if (error := error_of(found)) is not None:
        facts["error"] = error
    print_facts(facts)


@click.command()
@click.argument("job")
@with_session
def mistakes(session: Session, job: str) -> None:
    """Show what the new versions of JOB get wrong: labels confused, and the rows with the highest loss."""
    with session.client() as client:
        found = client.tuning.mistakes(client.tuning.get(job))
    if session.as_json:
        print_json({"versions": found})
        return
    for each in found:
        name = f"{each['reference']}, {each['rows']} rows of the {each['split']} split"
        print_confusion(name, each["confusion"])
        hardest = each["hardest"]
        rows = ((row["row"], row["loss"], row["answer"], row["said"], row["text"]) for row in hardest)
        print_table(
            ("#row", "#loss", "answer", "said", "text"), rows, empty=f"{name}: every answer is right."
        )


@click.command()
@click.argument("job")
@with_session
def cancel(session: Session, job: str) -> None:
    """Cancel JOB. Its last checkpoint is kept, so that it can be resumed."""
    with session.client() as client:
        found = client.tuning.cancel(job)
    if session.as_json:
        print_json(found)
    elif found.over:
        click.echo(f"{clean(found.id)} is {clean(found.status)}")
    else:
        click.echo(f"{clean(found.id)} is {clean(found.status)} and will stop at its next step")


@click.command()
@click.argument("job")
@with_session
def pause(session: Session, job: str) -> None:
    """Let JOB wait, from its next checkpoint on, until it is resumed."""
    with session.client() as client:
        _tell(session, client.tuning.pause(job))


@click.command()
@click.argument("job")
@click.option("--follow/--detach", default=True, help="Show the job until it is over. [default: follow]")
@with_session
def resume(session: Session, job: str, follow: bool) -> None:
    """Queue JOB again after it failed, was cancelled or paused. It goes on from its last checkpoint."""
    with session.client() as client:
        found = client.tuning.resume(job)
        if follow:
            follow_to_end(session, client, found)
        else:
            _tell(session, found)


def _tell(session: Session, job: Job) -> None:
    if session.as_json:
        print_json(job)
    else:
        click.echo(f"{clean(job.id)} is {clean(job.status)}{', paused' if job.paused else ''}")
