"""`share`, `unshare` and `grants` of tasks, ensembles and packs, and `chorus shared`."""

from __future__ import annotations

from collections.abc import Sequence

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


@click.command("share")
@click.argument("task")
@_with
@_right
@with_session
def share_task(session: Session, task: str, grantee: str, rights: Sequence[str]) -> None:
    """Let another tenant use TASK, in place of what it might do before. This takes the scope admin."""
    with session.client() as client:
        _tell(session, task, client.tasks.share(task, grantee, rights))


@click.command("unshare")
@click.argument("task")
@_with
@with_session
def unshare_task(session: Session, task: str, grantee: str) -> None:
    """Take back what another tenant was granted of TASK. Within a second it goes everywhere."""
    with session.client() as client:
        client.tasks.unshare(task, grantee)
    _tell_end(session, task, grantee)


@click.command("grants")
@click.argument("task")
@with_session
def task_grants(session: Session, task: str) -> None:
    """Show which tenants may use TASK, and how."""
    with session.client() as client:
        _table(session, client.tasks.grants(task))


@click.command("share")
@click.argument("name")
@_with
@_right
@with_session
def share_ensemble(session: Session, name: str, grantee: str, rights: Sequence[str]) -> None:
    """Let another tenant use the ensemble NAME with its members. This takes the scope admin."""
    with session.client() as client:
        _tell(session, name, client.ensembles.share(name, grantee, rights))


@click.command("unshare")
@click.argument("name")
@_with
@with_session
def unshare_ensemble(session: Session, name: str, grantee: str) -> None:
    """Take back what another tenant was granted of the ensemble NAME. Within a second it goes everywhere."""
    with session.client() as client:
        client.ensembles.unshare(name, grantee)
    _tell_end(session, name, grantee)


@click.command("grants")
@click.argument("name")
@with_session
def ensemble_grants(session: Session, name: str) -> None:
    """Show which tenants may use the ensemble NAME, and how."""
    with session.client() as client:
        _table(session, client.ensembles.grants(name))


@click.command("share")
@click.argument("name")
@_with
@_right
@with_session
def share_pack(session: Session, name: str, grantee: str, rights: Sequence[str]) -> None:
    """Let another tenant use the pack NAME with its versions. This takes the scope admin."""
    with session.client() as client:
        _tell(session, name, client.packs.share(name, grantee, rights))


@click.command("unshare")
@click.argument("name")
@_with
@with_session
def unshare_pack(session: Session, name: str, grantee: str) -> None:
    """Take back what another tenant was granted of the pack NAME. Within a second it goes everywhere."""
    with session.client() as client:
        client.packs.unshare(name, grantee)
    _tell_end(session, name, grantee)


@click.command("grants")
@click.argument("name")
@with_session
def pack_grants(session: Session, name: str) -> None:
    """Show which tenants may use the pack NAME, and how."""
    with session.client() as client:
        _table(session, client.packs.grants(name))


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
