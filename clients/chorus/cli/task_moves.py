"""`chorus tasks promote`, `rollback`, `aliases` and `delete`: where names point."""

from __future__ import annotations

import click

from chorus.cli.changing import delete_if_sure, tell_move
from chorus.cli.output import print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.client import Client


@click.command()
@click.argument("task")
@click.argument("version", type=click.IntRange(min=1))
@click.option("--alias", default="live", show_default=True)
@with_session
def promote(session: Session, task: str, version: int, alias: str) -> None:
    """Point an alias of TASK at VERSION."""
    with session.client() as client:
        tell_move(session, task, client.tasks.promote(task, version, alias))


@click.command()
@click.argument("task")
@click.option("--alias", default="live", show_default=True)
@with_session
def rollback(session: Session, task: str, alias: str) -> None:
    """Point an alias of TASK back to the version before its last move."""
    with session.client() as client:
        tell_move(session, task, client.tasks.rollback(task, alias))


@click.command()
@click.argument("task")
@click.option("--remove", metavar="ALIAS", help="Remove this alias; its version stays.")
@with_session
def aliases(session: Session, task: str, remove: str | None) -> None:
    """Show the aliases of TASK and the history of their moves."""
    with session.client() as client:
        if remove is not None:
            client.tasks.remove_alias(task, remove)
        found = client.tasks.aliases(task)
    if session.as_json:
        print_json(found)
        return
    print_table(("alias", "#version"), sorted(found.aliases.items()), empty="There are no aliases.")
    moves = (
        (move.moved_at, move.alias, move.previous, move.version, move.moved_by) for move in found.history
    )
    print_table(("moved", "alias", "#from", "#to", "by"), moves, empty="They never moved.")


@click.command()
@click.argument("task")
@click.option("--version", type=click.IntRange(min=1), help="Delete only this version.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_session
def delete(session: Session, task: str, version: int | None, yes: bool) -> None:
    """Delete TASK with all its versions, or one version."""
    what = task if version is None else f"{task}@{version}"

    def remove(client: Client) -> None:
        if version is None:
            client.tasks.delete(task)
        else:
            client.tasks.delete_version(task, version)

    delete_if_sure(session, what, yes, remove)
