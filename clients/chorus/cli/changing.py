"""What commands that delete something, or move an alias, have in common."""

from __future__ import annotations

from collections.abc import Callable

import click

from chorus.cli.output import clean, print_json
from chorus.cli.session import Session
from chorus.client import Client
from chorus.types import AliasMove


def delete_if_sure(session: Session, name: str, yes: bool, delete: Callable[[Client], object]) -> None:
    """Delete something, after a question unless `yes`."""
    if not yes:
        click.confirm(f"Delete {name}?", abort=True, err=True)
    with session.client() as client:
        delete(client)
    if session.as_json:
        print_json({"deleted": name})
    else:
        click.echo(f"{name} deleted")


def tell_move(session: Session, name: str, move: AliasMove) -> None:
    """Tell where an alias of `name` points now, and where it pointed before."""
    if session.as_json:
        print_json(move)
        return
    before = "was new" if move.previous is None else f"was {move.previous}"
    click.echo(f"{name}@{clean(move.alias)} is now version {move.version} ({before})")
