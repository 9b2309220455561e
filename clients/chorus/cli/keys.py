"""`chorus keys`: what callers show to be let in."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from chorus.cli.limit_options import limit_option, limits_of, pairs_of
from chorus.cli.output import cell, clean, print_facts, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.cli.values import Moment
from chorus.types import Key

SCOPES = ("infer", "prompts:read", "prompts:write", "tune", "metrics:read", "admin", "operator")

_tenant = click.option("--tenant", help="Whose keys, for operators. [default: the tenant of your own key]")


@click.group()
def keys() -> None:
    """Make, list, change and revoke keys. This takes a key with the scope admin."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(SCOPES),
    help="What the key may do. Repeat it for several.",
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="PATTERN",
    help="A task or ensemble that the key may name; * stands for any characters. Repeat it for several. "
    "[default: any]",
)
@click.option(
    "--expires",
    type=Moment(),
    help="When the key ends: 90d from now (m, h, d, w), 2030-01-31 (its beginning, in UTC) or "
    "2030-01-31T12:00Z. [default: never]",
)
@limit_option(
    "What it may use of what its tenant may, such as per_minute.requests=60. Repeat it for several."
)
@_tenant
@with_session
def create(
    session: Session,
    name: str,
    scopes: tuple[str, ...],
    tasks: tuple[str, ...],
    expires: datetime | None,
    limits: tuple[str, ...],
    tenant: str | None,
) -> None:
    """Make a key named NAME, after what will use it, and print the key. It is shown only once.

    The key alone is on standard output, so that it can be caught:

    \b
    KEY=$(chorus keys create website --scope infer)
    """
    with session.client() as client:
        made = client.keys.create(
            name,
            scopes=scopes,
            tasks=tasks or None,
            limits=limits_of(limits),
            expires_at=expires,
            tenant=tenant,
        )
    if session.as_json:
        print_json(made)
        return
    end = "never expires" if made.expires_at is None else f"expires {_moment(made.expires_at)}"
    note = f"note: {made.id} of {made.tenant} {end}. Keep the key now: it is not shown again."
    click.echo(clean(note), err=True)
    click.echo(clean(made.key))


@keys.command("list")
@_tenant
@with_session
def list_(session: Session, tenant: str | None) -> None:
    """List keys, newest first, also those that expired or were revoked. The keys themselves are not shown."""
    with session.client() as client:
        found = client.keys.list(tenant=tenant)
    if session.as_json:
        print_json({"keys": found})
        return
    rows = (
        (key.id, key.name, _beginning(key), key.status, key.scopes, key.tasks or "any", key.created_at,
         key.expires_at, key.last_used_at)
        for key in found
    )  # fmt: skip
    print_table(
        ("key", "name", "begins", "status", "scopes", "tasks", "created", "expires", "last used"),
        rows,
        empty="There are no keys.",
    )


@keys.command()
@click.argument("key")
@_tenant
@with_session
def show(session: Session, key: str, tenant: str | None) -> None:
    """Show KEY, by its id."""
    with session.client() as client:
        _show(session, client.keys.get(key, tenant=tenant))


@keys.command()
@click.argument("key")
@limit_option("What it may use, in place of all limits that it has. Repeat it for several.")
@click.option("--no-limits", is_flag=True, help="Let it use all that its tenant may.")
@_tenant
@with_session
def update(session: Session, key: str, limits: tuple[str, ...], no_limits: bool, tenant: str | None) -> None:
    """Change what KEY may use, by its id. For anything else, make another key."""
    changed = limits_of(limits, none=no_limits)
    if changed is None:
        raise click.UsageError("There is nothing to change: give --limit or --no-limits.")
    with session.client() as client:
        _show(session, client.keys.update(key, limits=changed, tenant=tenant))


@keys.command()
@click.argument("key")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_tenant
@with_session
def revoke(session: Session, key: str, yes: bool, tenant: str | None) -> None:
    """Revoke KEY, by its id, for good. Within a second it is refused everywhere."""
    with session.client() as client:
        if not yes:
            found = client.keys.get(key, tenant=tenant)
            click.confirm(f"Revoke {clean(found.id)}, which {clean(found.name)} uses?", abort=True, err=True)
        revoked = client.keys.revoke(key, tenant=tenant)
    if session.as_json:
        print_json(revoked)
    else:
        click.echo(f"{clean(revoked.id)} revoked")


def _show(session: Session, found: Key) -> None:
    if session.as_json:
        print_json(found)
        return
    facts: dict[str, object] = {
        "key": found.id,
        "tenant": found.tenant,
        "name": found.name,
        "begins": _beginning(found),
        "status": found.status,
        "scopes": found.scopes,
        "tasks": found.tasks or "any",
        "limits": list(pairs_of(found.limits)) or "none",
        "created": found.created_at,
        "by": found.created_by,
        "expires": found.expires_at or "never",
        "last used": found.last_used_at or "never",
    }
    if found.revoked_at is not None:
        facts["revoked"] = found.revoked_at
    print_facts(facts)


def _beginning(key: Key) -> str:
    """By which a key is recognised."""
    return f"ck_{key.public}_"


def _moment(moment: datetime) -> str:
    return f"{cell(moment.astimezone(UTC))} UTC"
