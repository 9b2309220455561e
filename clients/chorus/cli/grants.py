"""`share`, `unshare` and `grants` of tasks, ensembles and packs, and `chorus shared`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import click

from chorus.cli.output import clean, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.types import Grant

_with = click.option(
    "--with", "grantee", required=True, metavar="TENANT", help="Whose keys may use it; '*' means all."
)
_right = click.option(
    "--right",
    "rights",
    multiple=True,
    type=click.Choice(("infer", "read")),
    default=("infer",),
    show_default=True,
    help="infer: to ask it; read: to see and to download it. Repeat it for both.",
)


def commands(of: Literal["tasks", "ensembles", "packs"], metavar: str, what: str) -> list[click.Command]:
    """`share`, `unshare` and `grants` of one kind.

    Args:
        what: whom the commands are about, in their help.
    """
    named = click.argument("name", metavar=metavar)

    @click.command(
        "share",
        help=f"Let another tenant use {what}, in place of what it might do before. This "
        "takes the scope admin.",
    )
    @named
    @_with
    @_right
    @with_session
    def share(session: Session, name: str, grantee: str, rights: Sequence[str]) -> None:
        with session.client() as client:
            _tell(session, name, getattr(client, of).share(name, grantee, rights))

    @click.command(
        "unshare",
        help=f"Take back what another tenant was granted of {what}. It ends everywhere within a second.",
    )
    @named
    @_with
    @with_session
    def unshare(session: Session, name: str, grantee: str) -> None:
        with session.client() as client:
            getattr(client, of).unshare(name, grantee)
        _tell_end(session, name, grantee)

    @click.command("grants", help=f"Show which tenants may use {what}, and how.")
    @named
    @with_session
    def grants(session: Session, name: str) -> None:
        with session.client() as client:
            _table(session, getattr(client, of).grants(name))

    return [share, unshare, grants]


@click.command()
@click.option("--kind", type=click.Choice(("task", "ensemble", "pack")), help="Only those of one kind.")
@with_session
def shared(session: Session, kind: str | None) -> None:
    """List what other tenants share with yours."""
    with session.client() as client:
        found = client.shared(kind)
    if session.as_json:
        print_json({"shared": found})
        return
    rows = ((item.reference, item.kind, item.rights) for item in found)
    print_table(("name", "kind", "rights"), rows, empty="Nothing is shared with you.")


def _tell(session: Session, name: str, grant: Grant) -> None:
    if session.as_json:
        print_json(grant)
        return
    click.echo(f"{name} is shared with {_people(grant.grantee)}: {', '.join(map(clean, grant.rights))}")


def _tell_end(session: Session, name: str, grantee: str) -> None:
    if session.as_json:
        print_json({"unshared": name, "grantee": grantee})
    else:
        click.echo(f"{name} is no longer shared with {_people(grantee)}")


def _table(session: Session, found: Sequence[Grant]) -> None:
    if session.as_json:
        print_json({"grants": found})
        return
    rows = ((_people(grant.grantee), grant.rights, grant.created_at, grant.created_by) for grant in found)
    print_table(("tenant", "rights", "granted", "by"), rows, empty="It is shared with nobody.")


def _people(grantee: str) -> str:
    return "all tenants" if grantee == "*" else clean(grantee)
