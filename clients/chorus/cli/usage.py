"""`chorus usage`: what was used, as a table or CSV."""

from __future__ import annotations

import csv
import io
from datetime import datetime

import click

from chorus.cli.output import print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.types import UsageReport

GROUPS = ("tenant", "key", "task", "outcome", "hour", "day", "month")
COUNTS = ("items", "tokens_in", "tokens_out", "work_units")
_STARTS = {"hour": "%Y-%m-%d %H:%M", "day": "%Y-%m-%d", "month": "%Y-%m"}


@click.command()
@click.option("--from", "since", help="First moment, such as 2026-11-01 (UTC). [default: the month's first]")
@click.option("--to", "until", help="Where to end. [default: now]")
@click.option(
    "--by", "groups", type=click.Choice(GROUPS), multiple=True, help="Group by this; may be repeated."
)
@click.option("--tenant", help="Whose usage. [default: the key's tenant]")
@click.option("--task", "tasks", multiple=True, help="Only what this task used; may be repeated.")
@click.option("--top", type=click.IntRange(1, 500), help="Most rows to show: those with the most work units.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@with_session
def usage(
    session: Session,
    since: str | None,
    until: str | None,
    groups: tuple[str, ...],
    tenant: str | None,
    tasks: tuple[str, ...],
    top: int | None,
    as_csv: bool,
) -> None:
    """Show how many items, tokens and work units were used, in whole hours."""
    if as_csv and session.as_json:
        raise click.UsageError("Give either --csv or --json, not both.")
    with session.client() as client:
        report = client.usage(
            since=since, until=until, group_by=groups, tenant=tenant, task=tasks or None, top=top
        )
    if session.as_json:
        print_json(report)
        return
    names, rows = columns_of(report)
    if as_csv:
        click.echo(csv_of(report), nl=False)
        return
    start = next((_STARTS[name] for name in report.group_by if name in _STARTS), "")
    heads = [name.replace("_", " ") for name in names]
    table = [
        [value.strftime(start) if isinstance(value, datetime) else value for value in row] for row in rows
    ]
    marked = [f"#{head}" if name in COUNTS else head for name, head in zip(names, heads, strict=True)]
    print_table(marked, table, empty="Nothing was used.")


def columns_of(report: UsageReport) -> tuple[list[str], list[list[object]]]:
    """The columns that a report has, and its rows."""
    spans = [name for name in report.group_by if name in _STARTS]
    groups = [name for name in GROUPS if name in report.group_by and name not in _STARTS]
    names = [*(["start"] if spans else []), *groups, *COUNTS]
    return names, [[getattr(found, name) for name in names] for found in report.usage]


def csv_of(report: UsageReport) -> str:
    """A report as the server writes it to whoever asks for CSV."""
    names, rows = columns_of(report)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\r\n")
    lines.writerow(names)
    for row in rows:
        lines.writerow(
            value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
            for value in row
        )
    return text.getvalue()
