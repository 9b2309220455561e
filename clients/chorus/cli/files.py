"""`chorus files`: training data on the server."""

from __future__ import annotations

from pathlib import Path

import click

from chorus.cli.changing import delete_if_sure
from chorus.cli.output import clean, print_facts, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.types import DataFile


@click.group()
def files() -> None:
    """Upload, list and delete files of training data."""


@files.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="Name on the server; its ending tells the format. [default: FILE's name]")
@with_session
def push(session: Session, file: Path, name: str | None) -> None:
    """Upload FILE (JSONL, CSV, TSV, Parquet) and print its id, which `chorus tune` takes."""
    with session.client() as client:
        made = client.files.push(file, name=name)
    if session.as_json:
        print_json(made)
    else:
        click.echo(clean(made.id))


@files.command("list")
@with_session
def list_(session: Session) -> None:
    """List files, newest first."""
    with session.client() as client:
        found = client.files.list()
    if session.as_json:
        print_json({"files": found})
        return
    rows = ((file.id, file.name, size_of(file), file.created_at, file.created_by) for file in found)
    print_table(("file", "name", "#size", "created", "by"), rows, empty="There are no files.")


@files.command()
@click.argument("file")
@with_session
def show(session: Session, file: str) -> None:
    """Show FILE, by its id."""
    with session.client() as client:
        found = client.files.get(file)
    if session.as_json:
        print_json(found)
        return
    print_facts(
        {
            "file": found.id,
            "name": found.name,
            "size": f"{found.size_bytes:,} bytes",
            "sha256": found.sha256,
            "created": found.created_at,
            "by": found.created_by,
        }
    )


@files.command()
@click.argument("file")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_session
def delete(session: Session, file: str, yes: bool) -> None:
    """Delete FILE, by its id, unless an unfinished job needs it."""
    delete_if_sure(session, file, yes, lambda client: client.files.delete(file))


def size_of(file: DataFile) -> str:
    """A size in a suitable unit."""
    size = float(file.size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
