"""`chorus tasks`: tasks, versions and aliases."""

from __future__ import annotations

from itertools import islice

import click

from chorus.cli import calibrate, grants, hub, moves, task_files
from chorus.cli.changing import delete_if_sure
from chorus.cli.output import print_facts, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.cli.sweep_tables import differing, knobs_text
from chorus.client import Client
from chorus.routes.references import parse
from chorus.types import Task, Version


@click.group()
def tasks() -> None:
    """Push, list, promote, roll back, pull and share soft prompts."""


@tasks.command("list")
@click.option("--prefix", help="Only names that begin with this.")
@click.option("--label", help="Only tasks with this label.")
@with_session
def list_(session: Session, prefix: str | None, label: str | None) -> None:
    """List tasks."""
    with session.client() as client:
        found = client.tasks.list(prefix=prefix, label=label)
    if session.as_json:
        print_json({"tasks": found})
        return
    heads = ("task", "#versions", "#latest", "aliases", "quality", "moved", "by", "description")
    print_table(heads, map(_row, found), empty="There are no tasks.")


def _row(task: Task) -> tuple[object, ...]:
    """With the first metric of the live version, and the newest move of an alias."""
    quality = dict(islice(task.live.metrics.items(), 1)) if task.live else {}
    moved = (task.last_move.moved_at, task.last_move.moved_by) if task.last_move else (None, None)
    return (task.task, task.versions, task.latest, task.aliases, quality, *moved, task.description)


@tasks.command()
@click.argument("task")
@with_session
def show(session: Session, task: str) -> None:
    """Show TASK, or one version: TASK@3, TASK@live."""
    with session.client() as client:
        if parse(task).suffix is not None:
            version = client.tasks.version(task)
            print_json(version) if session.as_json else print_facts(version_facts(version))
            return
        shown = client.tasks.get(task)
    if session.as_json:
        print_json(shown)
        return
    print_facts(
        {
            "task": shown.task,
            "description": shown.description,
            "created": shown.created_at,
            "versions": shown.versions,
            "latest": shown.latest,
            "aliases": shown.aliases,
            "labels": shown.live.labels if shown.live else None,
            "metrics": shown.live.metrics if shown.live else None,
            "moved": shown.last_move.moved_at if shown.last_move else None,
            "moved by": shown.last_move.moved_by if shown.last_move else None,
        }
    )


@tasks.command()
@click.argument("task")
@with_session
def versions(session: Session, task: str) -> None:
    """List the versions of TASK, newest first."""
    with session.client() as client:
        found = client.tasks.versions(task)
    if session.as_json:
        print_json({"versions": found})
        return
    recipes = differing([v.lineage.get("recipe") or {} for v in found])
    told = ("recipe",) if any(recipes) else ()
    rows = (
        (v.version, v.aliases, v.length, v.labels, v.template, v.metrics)
        + ((knobs_text(recipe) or None,) if told else ())
        + (v.created_at, v.digest[:12])
        for v, recipe in zip(found, recipes, strict=True)
    )
    heads = ("#version", "aliases", "#length", "labels", "template", "metrics", *told, "created", "digest")
    print_table(heads, rows)


@tasks.command()
@click.argument("task")
@click.option(
    "--top-k", type=click.IntRange(1, 50), default=5, show_default=True, help="Pieces for each row."
)
@with_session
def neighbors(session: Session, task: str, top_k: int) -> None:
    """Show the pieces nearest to each row of TASK's prompt (TASK@live, TASK@3), and how far training moved
    it."""
    with session.client() as client:
        found = client.tasks.neighbors(task, top_k=top_k)
    if session.as_json:
        print_json(found)
        return
    rows = (
        (
            r.row,
            r.norm,
            r.moved.distance if r.moved else None,
            [f"{n.piece} {n.cosine:.2f}" for n in r.neighbors],
        )
        for r in found.rows
    )
    print_table(("#row", "#norm", "#moved", "nearest pieces"), rows)


@tasks.command()
@click.argument("task")
@click.option("--version", type=click.IntRange(min=1), help="Delete only this version.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_session
def delete(session: Session, task: str, version: int | None, yes: bool) -> None:
    """Delete TASK with all its versions, or one version."""
    what = task if version is None else f"{task}@{version}"

    def remove(client: Client) -> None:
        if version is None:
            client.tasks.delete(task)
        else:
            client.tasks.delete_version(task, version)

    delete_if_sure(session, what, yes, remove)


def version_facts(version: Version) -> dict[str, object]:
    """The facts about a version that people want to know."""
    return {
        "task": f"{version.task}@{version.version}",
        "aliases": version.aliases,
        "shape": f"{version.length} x {version.width}",
        "template": version.template,
        "labels": version.labels,
        "settings": version.settings,
        "metrics": version.metrics,
        "calibration": version.calibration,
        "base": version.base_fingerprint,
        "base model": version.lineage.get("base_model_name"),
        "digest": version.digest,
        "created": version.created_at,
    }


for command in (
    task_files.push,
    task_files.pull,
    hub.push_hub,
    *moves.commands("tasks", "TASK"),
    calibrate.calibrations,
    *grants.commands("tasks", "TASK", "TASK"),
):
    tasks.add_command(command)
