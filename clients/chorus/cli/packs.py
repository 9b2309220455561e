"""`chorus packs`: decision packs."""

from __future__ import annotations

from typing import Any

import click

from chorus.cli import grants, moves
from chorus.cli.changing import delete_if_sure
from chorus.cli.output import print_facts, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.types import Pack


@click.group()
def packs() -> None:
    """Store packs: which task answers which question of a decision."""


def _show(session: Session, found: Pack) -> None:
    if session.as_json:
        print_json(found)
        return
    questions = [
        f"{name}: {each.task}@{each.version}"
        + (
            f" ({', '.join(f'{value}={label}' for value, label in each.values.items())})"
            if each.values
            else ""
        )
        for name, each in found.questions.items()
    ]
    facts = {"pack": f"{found.pack}@{found.version}", "questions": questions}
    print_facts(
        {
            **facts,
            "unknown questions": found.unknown_questions,
            "aliases": found.aliases,
            "digest": found.digest,
            "created": found.created_at,
        }
    )


def _pair(text: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise click.UsageError(f"{text!r} is not as in {example}.")
    return name, value


def _questions(named: tuple[str, ...], mapped: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    questions: dict[str, dict[str, Any]] = {}
    for each in named:
        question, task = _pair(each, "refund=sentiment")
        questions[question] = {"task": task, "values": {}}
    for each in mapped:
        where, label = _pair(each, "refund:true=positive")
        question, colon, value = where.partition(":")
        if question not in questions or not colon:
            raise click.UsageError(f"--map {each!r} names no --question; write QUESTION:VALUE=LABEL.")
        questions[question]["values"][value] = label
    return questions


@packs.command()
@click.argument("name")
@click.option(
    "--question", "named", multiple=True, required=True, metavar="ID=TASK", help="What answers it; repeat."
)
@click.option(
    "--map",
    "mapped",
    multiple=True,
    metavar="ID:VALUE=LABEL",
    help="The task's label of a value that is not a label itself; repeat.",
)
@click.option(
    "--unknown",
    "unknown_questions",
    type=click.Choice(("refuse", "base")),
    default="refuse",
    show_default=True,
    help="What happens to a question that is not in the pack.",
)
@with_session
def create(
    session: Session, name: str, named: tuple[str, ...], mapped: tuple[str, ...], unknown_questions: str
) -> None:
    """Make the next version of NAME, pinned to the versions that the tasks name now."""
    questions = _questions(named, mapped)
    with session.client() as client:
        _show(session, client.packs.create(name, questions, unknown_questions=unknown_questions))


@packs.command("list")
@click.option("--prefix", help="Only names that begin with this.")
@with_session
def list_(session: Session, prefix: str | None) -> None:
    """List packs."""
    with session.client() as client:
        found = client.packs.list(prefix=prefix)
    if session.as_json:
        print_json({"packs": found})
        return
    rows = ((p.pack, p.version, len(p.questions), p.unknown_questions, p.aliases) for p in found)
    print_table(("pack", "#version", "#questions", "unknown", "aliases"), rows, empty="There are no packs.")


@packs.command()
@click.argument("name")
@with_session
def show(session: Session, name: str) -> None:
    """Show NAME, NAME@3 or NAME@alias."""
    with session.client() as client:
        _show(session, client.packs.get(name))


@packs.command()
@click.argument("name")
@with_session
def versions(session: Session, name: str) -> None:
    """List the versions of NAME, newest first."""
    with session.client() as client:
        found = client.packs.versions(name)
    if session.as_json:
        print_json({"versions": found})
        return
    rows = (
        (p.version, [a for a, at in p.aliases.items() if at == p.version], list(p.questions), p.created_at)
        for p in found
    )
    print_table(("#version", "aliases", "questions", "created"), rows)


@packs.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_session
def delete(session: Session, name: str, yes: bool) -> None:
    """Delete NAME with all its versions."""
    delete_if_sure(session, name, yes, lambda client: client.packs.delete(name))


for command in (
    *moves.commands("packs", "NAME"),
    *grants.commands("packs", "NAME", "the pack NAME with its versions"),
):
    packs.add_command(command)
