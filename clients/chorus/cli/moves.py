"""`promote`, `rollback` and `aliases` of tasks, ensembles and packs: where names point."""

from __future__ import annotations

from typing import Literal

import click

from chorus.cli.changing import tell_move
from chorus.cli.output import print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.types import Aliases


def commands(of: Literal["tasks", "ensembles", "packs"], metavar: str) -> list[click.Command]:
    """The commands of one kind."""
    named = click.argument("name", metavar=metavar)
    alias_option = click.option("--alias", default="live", show_default=True)

    @click.command("promote", help=f"Point an alias of {metavar} at VERSION.")
    @named
    @click.argument("version", type=click.IntRange(min=1))
    @alias_option
    @with_session
    def promote(session: Session, name: str, version: int, alias: str) -> None:
        with session.client() as client:
            tell_move(session, name, getattr(client, of).promote(name, version, alias))

    @click.command("rollback", help=f"Point an alias of {metavar} back to the version before its last move.")
    @named
    @alias_option
    @with_session
    def rollback(session: Session, name: str, alias: str) -> None:
        with session.client() as client:
            tell_move(session, name, getattr(client, of).rollback(name, alias))

    @click.command("aliases", help=f"Show the aliases of {metavar} and the history of their moves.")
    @named
    @click.option("--remove", metavar="ALIAS", help="Remove this alias; its version stays.")
    @with_session
    def aliases(session: Session, name: str, remove: str | None) -> None:
        with session.client() as client:
            methods = getattr(client, of)
            if remove is not None:
                methods.remove_alias(name, remove)
            _tell(session, methods.aliases(name))

    return [promote, rollback, aliases]


def _tell(session: Session, found: Aliases) -> None:
    if session.as_json:
        print_json(found)
        return
    print_table(("alias", "#version"), sorted(found.aliases.items()), empty="There are no aliases.")
    moves = (
        (move.moved_at, move.alias, move.previous, move.version, move.moved_by) for move in found.history
    )
    print_table(("moved", "alias", "#from", "#to", "by"), moves, empty="They never moved.")
