"""Follow a job to its end, in the form that suits the reader: a live screen, plain lines, or JSON Lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import click
from rich.console import Console
from rich.live import Live

from chorus.cli.job_lines import JobLines, metrics_text, prompt_names
from chorus.cli.job_live import JobScreen
from chorus.cli.job_view import JobView
from chorus.cli.output import clean, print_json
from chorus.cli.session import Session
from chorus.cli.sweep_tables import print_trials
from chorus.client import Client
from chorus.types import Job, JobEvent

DETACHED = 130
"""Exit code after Ctrl-C, the same as in shells."""


def follow_to_end(session: Session, client: Client, job: Job) -> None:
    """Show a job until it is over. Ctrl-C leaves it running.

    Exits with 1 if the job failed or was cancelled, with 130 after Ctrl-C.
    """
    view = JobView()
    try:
        with client.tuning.events(job) as events:
            if session.as_json:
                _as_json(events, view)
            elif (console := Console(file=sys.stdout, highlight=False)).is_interactive:
                _on_screen(events, view, job, console)
            else:
                _as_lines(events, view, job)
    except KeyboardInterrupt:
        click.echo(
            f"\nDetached; {job.id} goes on by itself.\n  follow it again:  chorus tune follow {job.id}\n  "
            f"stop it:          chorus tune cancel {job.id}",
            err=True,
        )
        raise SystemExit(DETACHED) from None
    ended = client.tuning.get(job)
    if session.as_json:
        print_json({"event": "done", "job": ended}, one_line=True)
    else:
        tell_end(ended, view)
    if not ended.succeeded:
        raise SystemExit(1)


def _as_json(events: Iterable[JobEvent], view: JobView) -> None:
    for event in events:
        view.apply(event)
        print_json({"event": event.kind, "seq": event.seq, "at": event.at.isoformat(), "data": event.data},
                   one_line=True)  # fmt: skip


def _as_lines(events: Iterable[JobEvent], view: JobView, job: Job) -> None:
    lines = JobLines(prompt_names(job))
    for event in events:
        view.apply(event)
        line = lines.line(event)
        if line is not None:
            click.echo(line)


def _on_screen(events: Iterable[JobEvent], view: JobView, job: Job, console: Console) -> None:
    screen = JobScreen(view, job.id, job.tasks)
    with Live(screen, console=console, refresh_per_second=4, vertical_overflow="crop"):
        for event in events:
            view.apply(event)


def tell_end(job: Job, view: JobView) -> None:
    """Print what the job made and how to use it, or why it made nothing."""
    if job.status == "failed":
        error = job.error or {}
        where = f" in {error['field']}" if error.get("field") else ""
        message = f"chorus: the job failed: {error.get('code', 'unknown')}{where}: {error.get('message', '')}"
        click.echo(" ".join(clean(message).split()), err=True)
    elif not job.succeeded:
        click.echo(f"The job was {clean(job.status)}.", err=True)
    diverged = (job.error or {}).get("code") == "diverged"  # it would diverge again
    if not job.succeeded and not diverged and job.progress.get("step"):  # else there is no checkpoint
        click.echo(f"To go on from its last checkpoint: chorus tune resume {job.id}", err=True)
    if job.result.get("trials"):
        print_trials(job.result["trials"])
    names, made = prompt_names(job), []
    for number, prompt in enumerate(job.result.get("prompts") or []):
        place = prompt.get("prompt", number)
        if prompt.get("reference"):
            made.append(place)
            name = f"  {names[place]}" if place < len(names) else ""
            click.echo(clean(f"{prompt['reference']}{name}  {_measured(prompt)}").rstrip())
    ensemble = job.result.get("ensemble")
    if ensemble:
        name, members = clean(str(ensemble.get("reference"))), len(ensemble.get("members") or [])
        click.echo(clean(f"{name}  an ensemble of {members}  {_measured(ensemble)}").rstrip())
        click.echo(f'\nTry it:  chorus ensemble vote {clean(str(ensemble.get("name")))} "TEXT"')
    elif made:
        verb = "classify" if _has_labels(job, made[0]) else "generate"
        made_by = {each.get("prompt", n): each for n, each in enumerate(job.result["prompts"])}
        reference = clean(made_by[made[0]]["reference"])
        click.echo(f'\nTry it:  chorus {verb} {reference} "TEXT"')


def _has_labels(job: Job, place: int) -> bool:
    """Whether this prompt of a job chooses among labels; if not, it writes text."""
    entries = job.spec.get("prompts") or [job.spec]
    return bool(entries[min(place, len(entries) - 1)].get("labels"))  # an ensemble has a single entry


def _measured(prompt: Mapping[str, object]) -> str:
    """Metrics of the chosen checkpoint: `validation_accuracy` is shown as `accuracy 0.9 (validation)`."""
    metrics = prompt.get("metrics")
    found: dict[str, dict[str, float]] = {}
    for name, value in (metrics if isinstance(metrics, dict) else {}).items():
        split, _, metric = str(name).partition("_")
        found.setdefault(split, {})[metric] = float(value)
    text = ", ".join(f"{metrics_text(named)} ({split})" for split, named in found.items())
    return f"{text}, chosen on test" if prompt.get("chosen_on") == "test" else text
