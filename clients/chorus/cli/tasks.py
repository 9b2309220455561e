"""`chorus tasks`: tasks, versions and aliases."""

from __future__ import annotations

import click

from chorus.cli import calibrate, grants, hub, task_files, task_moves
from chorus.cli.output import print_facts, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.cli.sweep_tables import differing, knobs_text
from chorus.routes.references import parse
from chorus.types import Version


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
    rows = ((task.task, task.versions, task.latest, task.aliases, task.description) for task in found)
    print_table(("task", "#versions", "#latest", "aliases", "description"), rows, empty="There are no tasks.")


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
    facts = shown.model_dump(include={"task", "description", "created_at", "versions", "latest", "aliases"})
    print_facts(
        {name: facts[name] for name in ("task", "description", "created_at", "versions", "latest", "aliases")}
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
    """Show the vocabulary pieces nearest to each row of TASK's prompt (TASK@live, TASK@3)."""
    with session.client() as client:
        found = client.tasks.neighbors(task, top_k=top_k)
    if session.as_json:
        print_json(found)
        return
    rows = ((r.row, r.norm, [f"{n.piece} {n.cosine:.2f}" for n in r.neighbors]) for r in found.rows)
    print_table(("#row", "#norm", "nearest pieces"), rows)


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
    task_moves.promote,
    task_moves.rollback,
    task_moves.aliases,
    task_moves.delete,
    calibrate.calibrations,
    *grants.commands("tasks", "TASK", "TASK"),
):
    tasks.add_command(command)
