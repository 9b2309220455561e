"""`chorus store`: commands with which an operator looks after the data folder. They start at once, without
JAX."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chorus_server.cli import config_options, readable_errors
from chorus_server.settings import STORE_SETTINGS, Settings, load_settings

if TYPE_CHECKING:
    from prompts_store.store import PromptStore
    from prompts_store.upkeep.backups import BackupReport
    from prompts_store.upkeep.check_report import CheckReport
    from prompts_store.upkeep.collector import CollectPlan, CollectReport, Removal
    from prompts_store.upkeep.identity import Pairing

_REASONS = {
    "blob": "no live version names it",
    "orphan": "nothing ever named it",
    "file": "no live file has it",
}
_NOUNS = {
    "blob": "blobs of deleted versions",
    "orphan": "blobs that nothing ever named",
    "file": "data files",
}

_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")


@contextmanager
def _opened(config: Path | None, flags: dict[str, Any]) -> Iterator[tuple[Settings, PromptStore]]:
    """The settings, and the store that they name."""
    from chorus_server.storage import open_store

    # The commands report in their own words what opening the store would log.
    logging.getLogger("chorus.store").addHandler(logging.NullHandler())
    with readable_errors():
        settings = load_settings(flags, config, listening=False)
        with closing(open_store(settings, make=False)) as store:
            yield settings, store


@click.group()
def store() -> None:
    """Look after the data folder and the database: check them, collect what is not needed, adopt, migrate.

    Run these commands on the server's machine, with its data folder and database. They have the options and
    environment variables of `chorus serve`. Every command works beside a running server.
    """


@store.command()
@click.option("--repair", is_flag=True, help="Correct what can be computed again; files stay as they are.")
@_as_json
@config_options(*STORE_SETTINGS)
def check(repair: bool, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Read everything back, and say what is wrong and what to do.

    Blobs and data files are compared with their digests, and the database's counts, aliases, labels and
    manifests with each other. With --repair, counts, labels and numbers of events are computed again from the
    versions and events. A damaged blob is reported and left in place until the same values are published
    again. It also says whether row-level security stands.

    The exit code is 0 if nothing is wrong or everything was repaired, else 1.
    """
    with _opened(config, flags) as (settings, store):
        report, fault = store.check(repair=repair), store.fence_fault()
    (_print_check_json if as_json else _print_check)(report, settings, fault)
    sys.exit(int(any(not problem.repaired for problem in report.problems)))


@store.command(short_help="Make or change the database's tables.")
@config_options(*STORE_SETTINGS)
def migrate(config: Path | None, **flags: Any) -> None:
    """Make the database's tables, or bring those of an older Chorus up to date.

    A server does this when it starts, unless its login may not: where row-level security stands, run this
    before it, with the database URL of chorus_migrate. See deploy/postgresql/roles.sql.

    Tables of a newer Chorus that still serve this one stay as they are, and the exit code is 0; others are an
    error.
    """
    from prompts_store.database import Database

    logging.getLogger("chorus.store").addHandler(logging.NullHandler())  # what it would log is said below
    with readable_errors():
        settings = load_settings(flags, config, listening=False)
        with closing(Database.open(settings.data_dir, settings.database_url)) as database:
            newer, known = database.newer, database.migration
    if newer is None:
        click.echo(f"The tables are up to date (migration {known}).")
    else:
        click.echo(
            f"Nothing was changed: the tables are a newer Chorus's (migration {newer}), and this one knows "
            f"those up to {known}. They still serve it, so it may run beside the newer one. To change "
            "tables, run this command of the newest Chorus."
        )


@store.command(short_help="Remove what nothing needs, now.")
@click.option("--dry-run", is_flag=True, help="List what would be removed, and its size; remove nothing.")
@click.option(
    "--allow-mass-removal",
    is_flag=True,
    help="Go on even if more than half of the blobs, or of the data files, and more than 20 would be "
    "removed.",
)
@_as_json
@config_options(*STORE_SETTINGS, "collect_grace_seconds", "audit_days")
def collect(
    dry_run: bool, allow_mass_removal: bool, as_json: bool, config: Path | None, **flags: Any
) -> None:
    """Remove what nothing needs, now: blobs of deleted versions, data files, unfinished uploads of dead
    processes.

    The server does the same in the background. Both refuse what looks like a mistake: a database and a folder
    with different ids, or a collection of more than half of what is there. The grace period must be longer
    than a running server reads a version that was deleted meanwhile.

    The exit code is 1 if the collection is refused or, with --dry-run, would be.
    """
    with _opened(config, flags) as (settings, store):
        if not dry_run:
            report = store.collect(
                grace_seconds=settings.collect_grace_seconds,
                allow_mass_removal=allow_mass_removal,
                audit_days=settings.audit_days,
            )
            click.echo(json.dumps(asdict(report), indent=2) if as_json else _told(report))
            return
        plan = store.plan_collection(
            grace_seconds=settings.collect_grace_seconds, allow_mass_removal=allow_mass_removal
        )
    if as_json:
        click.echo(json.dumps(asdict(plan), indent=2))
    else:
        _print_plan(plan)
    sys.exit(int(plan.refusal is not None))


@store.command(short_help="Copy the store to a folder or a bucket.")
@click.argument("target")
@_as_json
@config_options(*STORE_SETTINGS)
def backup(target: str, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Copy the database's rows, the blobs and the data files to TARGET: a folder, or a URL as of blob_url.

    Servers may go on. A second backup to the same place copies only what is new, and takes the place of the
    first when it is whole. What else a server keeps in its data folder (compiled programs, the work of
    running jobs) is not copied. A bucket is reached with the same settings as that of blob_url.

    The exit code is 1 if something was damaged, and so was left out.
    """
    from chorus_server.storage import blob_address

    with _opened(config, flags) as (settings, store):
        report = store.backup(blob_address(settings, _url(target)))
    _print_copied(report, as_json)


@store.command(short_help="Fill an empty store from a backup.")
@click.argument("source")
@_as_json
@config_options(*STORE_SETTINGS)
def restore(source: str, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Fill a new store from the backup in SOURCE: a folder, or a URL as of blob_url.

    The data folder and database that the settings name must not have been used by a server. The backup may be
    of the other kind of database, or of an older Chorus. If this is cut off, the same command goes on.

    The exit code is 1 if something was damaged, and so was left out.
    """
    from chorus_server.storage import blob_address, open_store

    with readable_errors():
        settings = load_settings(flags, config, listening=False)
        with closing(open_store(settings)) as opened:
            report = opened.restore(blob_address(settings, _url(source)))
    _print_copied(report, as_json)


def _url(place: str) -> str:
    """A folder's path as a URL."""
    return place if "://" in place else Path(place).absolute().as_uri()


def _print_copied(report: BackupReport, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        click.echo(f"{report.rows} rows, {report.blobs} blobs and {report.files} data files were copied.")
        for digest in report.damaged:
            click.echo(f"damaged, and left out: {digest}", err=True)
    sys.exit(int(bool(report.damaged)))


@store.command(short_help="Make the data folder carry the database's id.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_options(*STORE_SETTINGS)
def adopt(yes: bool, config: Path | None, **flags: Any) -> None:
    """Give the data folder the database's id, so that it can be collected again.

    Use this for a database that was created anew beside old blobs, or restored from elsewhere, once you know
    that it is the right one. A later collection removes what the database does not know: if there is a backup
    of the database, restore that instead. First stop the servers of any other database that uses this folder.
    """
    with _opened(config, flags) as (settings, store):
        pairing = store.pairing()
        _print_pairing(pairing, settings)
        if pairing.one:
            click.echo("They have the same id: there is nothing to do.")
            return
        click.echo("A later collection removes what the database does not know.")
        if not yes:
            click.confirm(f"Make {_place(settings)} carry the database's id?", abort=True, err=True)
        store.adopt()
        click.echo(f"{_place(settings)} carries {pairing.id} now. See what a collection would remove with:")
        click.echo("  chorus store collect --dry-run")


def _place(settings: Settings) -> str:
    """Where blobs and data files are, for people."""
    return settings.blob_url or str(settings.data_dir)


def _print_check(report: CheckReport, settings: Settings, fence_fault: str | None) -> None:
    from prompts_store.upkeep.check_report import KINDS

    click.echo(
        f"{_place(settings)}: {report.versions} live versions, {report.blobs} blobs and {report.files} data "
        f"files were checked."
    )
    if report.orphans or report.temporary_files:
        click.echo(
            f"{report.orphans} blobs and data files that nothing names, {report.temporary_files} temporary "
            f"files: uploads under way, or interrupted ones, which a collection removes."
        )
    for kind in dict.fromkeys(problem.kind for problem in report.problems):
        found = [problem for problem in report.problems if problem.kind == kind]
        repaired = all(problem.repaired for problem in found)
        click.echo(f"\n{kind} ({len(found)}{', repaired' if repaired else ''})")
        click.echo(f"  {KINDS[kind].meaning}")
        if not repaired:
            click.echo(f"  {KINDS[kind].advice}")
        for problem in found:
            click.echo(f"    {problem.where}: {problem.message}")
    left = sum(not problem.repaired for problem in report.problems)
    if report.clean:
        click.echo("Nothing is wrong.")
    else:
        click.echo(f"\n{len(report.problems)} found, {len(report.problems) - left} repaired, {left} left.")
    click.echo(f"Row-level security: {'not up: ' + fence_fault if fence_fault else 'up'}.")


def _print_check_json(report: CheckReport, settings: Settings, fence_fault: str | None) -> None:
    from prompts_store.upkeep.check_report import KINDS

    content = asdict(report) | {"data_dir": str(settings.data_dir), "clean": report.clean}
    content["fence_fault"] = fence_fault
    for problem in content["problems"]:
        problem |= KINDS[problem["kind"]]._asdict()
    click.echo(json.dumps(content, indent=2))


def _told(report: CollectReport) -> str:
    held = f" {report.held} are being read and were kept." if report.held else ""
    return (
        f"Removed {report.blobs} {_NOUNS['blob']}, {report.orphans} {_NOUNS['orphan']}, {report.files} "
        f"{_NOUNS['file']} ({report.freed_bytes:,} bytes), {report.temporary_files} temporary files.{held}"
    )


def _print_plan(plan: CollectPlan) -> None:
    for one in plan.removals:
        click.echo(f"{one.kind:6} {one.digest} {one.size_bytes:>12,}  {_REASONS[one.kind]}")
    click.echo(f"Would remove {_summed(plan.removals)}, {plan.temporary_files} temporary files.")
    if plan.refusal:
        click.echo(f"The collection would be refused. {plan.refusal}", err=True)


def _summed(removals: tuple[Removal, ...]) -> str:
    counts = (f"{sum(one.kind == kind for one in removals)} {noun}" for kind, noun in _NOUNS.items())
    return f"{', '.join(counts)} ({sum(one.size_bytes for one in removals):,} bytes)"


def _print_pairing(pairing: Pairing, settings: Settings) -> None:
    from sqlalchemy import make_url

    url = settings.database_url and make_url(settings.database_url).render_as_string(hide_password=True)
    click.echo(f"{'database':13} {pairing.id}  {url or settings.data_dir / 'chorus.db'}")
    for folder in pairing.folders:
        click.echo(f"{folder.folder:13} {folder.id or 'no id':36}  {_place(settings)}/{folder.folder}")
    click.echo()
    for folder in pairing.folders:
        click.echo(
            f"{folder.folder}: {folder.held} there; the database needs {folder.present} of them and does not "
            f"know {folder.held - folder.known}; {folder.needed - folder.present} that it needs are missing."
        )
