"""`chorus tenants`: who owns tasks, files, jobs and keys."""

from __future__ import annotations

from typing import Any

import click

from chorus.cli.limit_options import limit_option, limits_of, pairs_of, retention_of, retention_option
from chorus.cli.offered import OfferingGroup
from chorus.cli.output import cell, clean, print_facts, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.types import Tenant

STATUSES = ("active", "suspended", "deleted")
SHORT_HELP = {"bootstrap": "Make the first operator key, on the server's machine (extra: server)."}
"""Help of this distribution's entry points."""


@click.group(cls=OfferingGroup, offers="chorus.commands.tenants", offered_help=SHORT_HELP)
def tenants() -> None:
    """Make, change, suspend and delete tenants. This takes an operator's key."""


@tenants.command()
@click.argument("name")
@click.option("--display-name", help="Name for people.")
@click.option("--weight", type=float, help="Its share of a busy server against the others'. [default: 1]")
@limit_option(
    "What it may use, such as per_minute.requests=600. Repeat it for several. [default: any amount]"
)
@retention_option("For how many days usage and audit log are kept: usage_days=90, audit_days=365.")
@with_session
def create(
    session: Session,
    name: str,
    display_name: str | None,
    weight: float | None,
    limits: tuple[str, ...],
    retention: tuple[str, ...],
) -> None:
    """Make the tenant NAME. The name stays for ever, and is never given again."""
    documents = {"limits": limits_of(limits), "retention": retention_of(retention)}
    with session.client() as client:
        made = client.tenants.create(name, display_name=display_name, weight=weight, **documents)
    _tell(session, made, "created")


@tenants.command("list")
@click.option("--prefix", help="Only names that begin with this.")
@click.option("--status", type=click.Choice(STATUSES), help="Only tenants with this status.")
@with_session
def list_(session: Session, prefix: str | None, status: str | None) -> None:
    """List tenants by name. Deleted ones are left out, unless --status asks for them."""
    with session.client() as client:
        found = client.tenants.list(prefix=prefix, status=status)
    if session.as_json:
        print_json({"tenants": found})
        return
    rows = ((t.tenant, t.display_name, t.weight, t.status, t.created_at, t.created_by) for t in found)
    print_table(
        ("tenant", "display name", "#weight", "status", "created", "by"), rows, empty="There are no tenants."
    )


@tenants.command()
@click.argument("tenant")
@with_session
def show(session: Session, tenant: str) -> None:
    """Show TENANT."""
    with session.client() as client:
        _show(session, client.tenants.get(tenant))


@tenants.command()
@click.argument("tenant")
@click.option("--display-name", help="Name for people.")
@click.option("--weight", type=float, help="Its share of a busy server against the others'.")
@limit_option("What it may use, in place of all limits that it has. Repeat it for several.")
@click.option("--no-limits", is_flag=True, help="Let it use any amount.")
@retention_option("usage_days or audit_days, in place of both that it has. Repeat it for both.")
@click.option("--default-retention", is_flag=True, help="Keep both as long as everybody's.")
@with_session
def update(
    session: Session,
    tenant: str,
    display_name: str | None,
    weight: float | None,
    limits: tuple[str, ...],
    no_limits: bool,
    retention: tuple[str, ...],
    default_retention: bool,
) -> None:
    """Change what the options name of TENANT; the rest stays."""
    changes: dict[str, Any] = {
        "display_name": display_name,
        "weight": weight,
        "limits": limits_of(limits, none=no_limits),
        "retention": retention_of(retention, default=default_retention),
    }
    if all(value is None for value in changes.values()):
        raise click.UsageError(
            "There is nothing to change: give --display-name, --weight, --limit or --retention."
        )
    with session.client() as client:
        _show(session, client.tenants.update(tenant, **changes))


@tenants.command()
@click.argument("tenant")
@with_session
def suspend(session: Session, tenant: str) -> None:
    """Refuse TENANT's keys and begin none of its jobs. `resume` undoes this."""
    with session.client() as client:
        _tell(session, client.tenants.suspend(tenant), "suspended")


@tenants.command()
@click.argument("tenant")
@with_session
def resume(session: Session, tenant: str) -> None:
    """Let TENANT's keys in again, and run its jobs."""
    with session.client() as client:
        _tell(session, client.tenants.resume(tenant), "resumed")


@tenants.command()
@click.argument("tenant")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_session
def delete(session: Session, tenant: str, yes: bool) -> None:
    """Delete TENANT. Its keys are refused at once; its tasks, files and jobs are removed later, after the
    time that is printed.
    """
    if not yes:
        click.confirm(f"Delete {tenant} and everything it has?", abort=True, err=True)
    with session.client() as client:
        deleted = client.tenants.delete(tenant)
    after = (
        "" if deleted.purge_after is None else f"; what it had is removed after {cell(deleted.purge_after)}"
    )
    _tell(session, deleted, f"deleted{after}")


def _tell(session: Session, tenant: Tenant, what: str) -> None:
    if session.as_json:
        print_json(tenant)
    else:
        click.echo(f"{clean(tenant.tenant)} {what}")


def _show(session: Session, tenant: Tenant) -> None:
    if session.as_json:
        print_json(tenant)
        return
    facts: dict[str, object] = {
        "tenant": tenant.tenant,
        "display name": tenant.display_name or None,
        "weight": tenant.weight,
        "status": tenant.status,
        "limits": list(pairs_of(tenant.limits)) or "none",
        "retention": list(pairs_of(tenant.retention)) or "default",
        "created": tenant.created_at,
        "by": tenant.created_by,
    }
    if tenant.suspended_at is not None:
        facts["suspended"] = tenant.suspended_at
    print_facts(facts)
