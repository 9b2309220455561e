"""`chorus ensemble`: stored ensembles, and votes."""

from __future__ import annotations

import click

from chorus.cli import grants, moves
from chorus.cli.changing import delete_if_sure
from chorus.cli.inference import priority_option, special_tokens_option
from chorus.cli.output import clean, print_error, print_facts, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.cli.values import collect_inputs
from chorus.routes.inference import Priority
from chorus.types import Ensemble, EnsembleResponse, FailedItem


@click.group()
def ensemble() -> None:
    """Store ensembles of prompts, and let prompts vote."""


def _weights(weights: tuple[float, ...]) -> list[float] | None:
    return list(weights) or None


def _show(session: Session, found: Ensemble) -> None:
    if session.as_json:
        print_json(found)
        return
    members = [f"{m.task}@{m.version}" + ("" if m.weight == 1 else f" x {m.weight:g}") for m in found.members]
    facts = {"ensemble": f"{found.ensemble}@{found.version}", "vote": found.vote, "members": members}
    print_facts({**facts, "aliases": found.aliases, "digest": found.digest, "created": found.created_at})


@ensemble.command()
@click.argument("name")
@click.argument("tasks", nargs=-1, required=True)
@click.option("--weight", "weights", multiple=True, type=float, help="One weight for each task, in order.")
@with_session
def create(session: Session, name: str, tasks: tuple[str, ...], weights: tuple[float, ...]) -> None:
    """Make the next version of NAME from TASKS, pinned to the versions that they name now."""
    with session.client() as client:
        _show(session, client.ensembles.create(name, list(tasks), weights=_weights(weights)))


@ensemble.command("list")
@click.option("--prefix", help="Only names that begin with this.")
@with_session
def list_(session: Session, prefix: str | None) -> None:
    """List stored ensembles."""
    with session.client() as client:
        found = client.ensembles.list(prefix=prefix)
    if session.as_json:
        print_json({"ensembles": found})
        return
    rows = ((e.ensemble, e.version, e.vote, len(e.members), e.aliases) for e in found)
    print_table(
        ("ensemble", "#version", "vote", "#members", "aliases"), rows, empty="There are no ensembles."
    )


@ensemble.command()
@click.argument("name")
@with_session
def show(session: Session, name: str) -> None:
    """Show NAME, NAME@3 or NAME@alias."""
    with session.client() as client:
        _show(session, client.ensembles.get(name))


@ensemble.command()
@click.argument("name")
@with_session
def versions(session: Session, name: str) -> None:
    """List the versions of NAME, newest first."""
    with session.client() as client:
        found = client.ensembles.versions(name)
    if session.as_json:
        print_json({"versions": found})
        return
    rows = (
        (
            e.version,
            [alias for alias, at in e.aliases.items() if at == e.version],
            [f"{m.task}@{m.version}" for m in e.members],
            e.created_at,
        )
        for e in found
    )
    print_table(("#version", "aliases", "members", "created"), rows)


@ensemble.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_session
def delete(session: Session, name: str, yes: bool) -> None:
    """Delete NAME with all its versions."""
    delete_if_sure(session, name, yes, lambda client: client.ensembles.delete(name))


@ensemble.command()
@click.argument("words", nargs=-1, metavar="[ENSEMBLE] [TEXT]...")
@click.option("--task", "tasks", multiple=True, help="A member, in place of ENSEMBLE; repeat.")
@click.option("--weight", "weights", multiple=True, type=float, help="One weight for each --task, in order.")
@click.option(
    "--field", "fields", multiple=True, metavar="NAME=TEXT", help="A field of the template; repeat."
)
@click.option(
    "--label", "labels", multiple=True, help="A label to choose from; repeat. [default: the members' own]"
)
@click.option("--truncate", is_flag=True, default=None, help="Cut a text that is too long.")
@special_tokens_option
@priority_option
@with_session
def vote(
    session: Session,
    words: tuple[str, ...],
    tasks: tuple[str, ...],
    weights: tuple[float, ...],
    fields: tuple[str, ...],
    labels: tuple[str, ...],
    truncate: bool | None,
    special_tokens: bool | None,
    priority: Priority | None,
) -> None:
    """Ask a stored ENSEMBLE, or the prompts given with --task, about each TEXT."""
    name = None if tasks or not words else words[0]
    if not tasks and name is None:
        raise click.UsageError("Name a stored ensemble, or its members with --task.")
    inputs = collect_inputs(words if tasks else words[1:], fields)
    with session.client() as client:
        answer = client.ensemble(
            name,
            tasks=list(tasks) or None,
            inputs=inputs,
            weights=_weights(weights),
            labels=list(labels) or None,
            truncate=truncate,
            special_tokens=special_tokens,
            priority=priority,
        )
    _tell_votes(session, answer)
    if answer.failures:
        raise SystemExit(1)


def _tell_votes(session: Session, answer: EnsembleResponse) -> None:
    if session.as_json:
        print_json(answer)
    for index, item in enumerate(answer.results):
        if isinstance(item, FailedItem):
            print_error(item.error, f" (input {index})")
        elif not session.as_json:
            counts = ", ".join(f"{clean(name)} {count:g}" for name, count in item.counts.items())
            click.echo(f"{clean(item.answer)}  (agreement {item.agreement:.0%}: {counts})")


for command in (
    *moves.commands("ensembles", "NAME"),
    *grants.commands("ensembles", "NAME", "the ensemble NAME with its members"),
):
    ensemble.add_command(command)
