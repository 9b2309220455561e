"""`chorus audit`: who changed what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import click

from chorus import Client
from chorus.cli.output import clean, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.types import AuditRow

_PAGE = 500
_tenant = click.option(
    "--tenant", help="Whose log, for operators; '' for the whole store's. [default: your own key's tenant]"
)


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for name in ("subject", "action", "actor"):
        command = click.option(f"--{name}", help="Only rows with exactly this.")(command)
    return command


@click.group()
def audit() -> None:
    """Show, export and verify the log of who changed what. This takes a key with the scope admin."""


@audit.command("list")
@_filters
@_tenant
@with_session
def list_(
    session: Session, tenant: str | None, actor: str | None, action: str | None, subject: str | None
) -> None:
    """List changes, oldest first."""
    with session.client() as client:
        found = list(_rows(client, tenant=tenant, actor=actor, action=action, subject=subject))
    if session.as_json:
        print_json({"rows": found})
        return
    rows = ((row.sequence, row.at, row.actor, row.address, row.action, row.subject) for row in found)
    headings = ("row", "at", "actor", "from", "action", "subject")
    print_table(headings, rows, empty="There are no changes.")


@audit.command()
@_tenant
@with_session
def export(session: Session, tenant: str | None) -> None:
    """Print the whole log as JSON Lines, each row as its hash was computed."""
    with session.client() as client:
        for row in _rows(client, tenant=tenant):
            click.echo(_canonical(_facts(row)))


@audit.command()
@_tenant
@with_session
def verify(session: Session, tenant: str | None) -> None:
    """Compute every row's hash again, and compare it with what the next row says.

    The exit code is 1 if the log is not one chain. Keep the number and the hash of the newest row, which this
    prints: if they are there again later, nothing before them was rewritten.
    """
    number, wrong = 0, []
    last: AuditRow | None = None
    with session.client() as client:
        for row in _rows(client, tenant=tenant):
            number += 1
            wrong += chain_problems(last, row)
            last = row
    if session.as_json:
        end = None if last is None else {"sequence": last.sequence, "hash": last.hash}
        print_json({"rows": number, "newest": end, "problems": wrong})
    else:
        for problem in wrong:
            click.echo(problem)
        if last is not None:
            click.echo(clean(f"{number} rows, the newest is {last.sequence} with the hash {last.hash}"))
        click.echo("The log is one chain." if not wrong else f"{len(wrong)} problems were found.")
    if wrong:
        raise SystemExit(1)


def _rows(client: Client, **query: str | None) -> Iterator[AuditRow]:
    """Every row, page after page, so that a log of any length is read in little memory."""
    after: int | None = None
    while True:
        page = client.audit.page(after=after, limit=_PAGE, **query)  # type: ignore[arg-type]
        yield from page.rows
        after = page.next_after
        if after is None:
            return


def chain_problems(last: AuditRow | None, row: AuditRow) -> list[str]:
    """What is wrong with a row, given the one before it; nothing if the log is one chain here."""
    facts = _facts(row)
    del facts["hash"]
    found = []
    if hashlib.sha256(_canonical(facts).encode()).hexdigest() != row.hash:
        found.append(f"row {row.sequence} does not have the hash of what it says")
    if last is not None and row.sequence != last.sequence + 1:
        found.append(f"rows between {last.sequence} and {row.sequence} are missing")
    elif last is not None and row.previous != last.hash:
        found.append(f"row {row.sequence} names another hash than row {last.sequence} has")
    return found


def _facts(row: AuditRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in AuditRow.model_fields} | {"at": _moment(row.at)}


def _canonical(facts: dict[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"))


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
