"""docs/client.md names every verb, method, error and setting."""

from __future__ import annotations

import inspect
import re

import click
import pytest

from chorus import cli, errors
from chorus.batches import Batches
from chorus.cli import root
from chorus.client import Audit, Client, Ensembles, Keys, Tasks, Tenants
from chorus.evaluations import Evaluations
from chorus.jobs import Jobs
from chorus.methods import Method, StreamMethod
from chorus.retries import RetryPolicy
from chorus.routes import evaluations, keys, tuning
from chorus.routes.inference import Settings
from chorus.tuning import Files, Tuning
from chorus.types.events import EVENT_TYPES
from chorus_server.tenants_cli import bootstrap
from tests.places import ROOT

DOCS = ROOT / "docs"
TEXT = (DOCS / "client.md").read_text(encoding="utf-8")


def verbs(group: click.Group, path: str = "chorus") -> list[str]:
    found: list[str] = []
    for name, command in group.commands.items():
        here = f"{path} {name}"
        found += verbs(command, here) if isinstance(command, click.Group) else [here]
    return found


def methods(owner: type, prefix: str = "") -> list[str]:
    return [
        prefix + name
        for name, value in inspect.getmembers(owner)
        if isinstance(value, (Method, StreamMethod))
    ]


EXPECTED = [
    *verbs(root.chorus),
    *(f"{name}(" for name in methods(Client)),
    *(f"{name}" for name in methods(Tasks, "tasks.") + methods(Ensembles, "ensembles.")),
    *methods(Files, "files.") + methods(Tuning, "tuning.") + methods(Evaluations, "evaluations."),
    *methods(Batches, "batches."),
    *methods(Jobs, "jobs."),
    "jobs.events",
    "jobs.wait",
    "batches.events",
    "batches.wait",
    "files.save",
    "evaluations.events",
    "evaluations.wait",
    *(f"{name}=" for name in list(inspect.signature(evaluations.start).parameters)[2:]),
    *methods(Tenants, "tenants.") + methods(Keys, "keys.") + methods(Audit, "audit."),
    *(f"{name}=" for name in list(inspect.signature(keys.create).parameters)[1:]),
    "chorus tenants bootstrap",
    "NewKey",
    "tuning.events",
    "tuning.wait",
    *(f"{name}=" for name in list(inspect.signature(tuning.start).parameters)[1:-1]),
    "**fields",
    "JobEventStream",
    "JobEvent",
    *(name for name in vars(errors) if name.endswith("Error")),
    *Settings.__annotations__,
    *(kind.__name__ for kind in EVENT_TYPES.values()),
    "RetryPolicy",
    "FailedItem",
    "EventStream",
]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_page_names_it(name: str) -> None:
    assert name in TEXT


def test_something_unheard_of_is_not_there() -> None:
    """The control of the test above."""
    assert "tasks.explode" not in TEXT and len(EXPECTED) > 60


def test_no_option_is_made_up() -> None:
    known = {
        option
        for group in (*every_command(root.chorus), bootstrap)
        for p in group.params
        for option in (*p.opts, *p.secondary_opts)
    }
    assert set(re.findall(r"--[a-z][a-z-]+", TEXT)) - known == set()


def every_command(command: click.Command) -> list[click.Command]:
    children = command.commands.values() if isinstance(command, click.Group) else ()
    return [command, *(deeper for child in children for deeper in every_command(child))]


def test_figures_of_the_retry_policy_are_as_documented() -> None:
    policy = RetryPolicy()
    assert (policy.budget_ratio, policy.budget_reserve, policy.budget_per_second) == (0.1, 5.0, 0.1)
    assert (policy.first_wait_seconds, policy.longest_wait_seconds, policy.retries) == (0.25, 30.0, 3)


def test_the_entry_point_is_there() -> None:
    assert cli.main.__doc__
