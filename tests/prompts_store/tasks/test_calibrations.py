"""Calibrations: numbered records beside a version, of which the newest serves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tables import calibrations
from prompts_store.errors import InvalidError, LeaseLostError, NotFoundError
from prompts_store.records import Calibration, EnsembleMember
from prompts_store.testing import FakeClock, example_calibration, example_prompt


@pytest.fixture
def published(store: PromptStore) -> PromptStore:
    store.create_tenant("acme")
    store.publish("acme", "sst2", *example_prompt(1, labels=("no", "yes")))
    return store


def test_the_newest_is_read_with_the_version(published: PromptStore, clock: FakeClock) -> None:
    store, first = published, published.get_version("acme", "sst2", 1)
    assert first.calibration is None
    made = store.calibrate("acme", "sst2", 1, example_calibration(), created_by="ann")
    assert made == Calibration(1, example_calibration(), clock(), "ann")
    second = store.calibrate("acme", "sst2", 1, example_calibration(3.0, prior=(0.5, -0.5)))
    assert second.number == 2
    found = store.resolve("sst2", tenant="acme")
    assert found.calibration == second
    assert found == store.get_version("acme", "sst2", 1) == store.list_versions("acme", "sst2").items[0]
    # What the version is stays the same.
    assert replace(found, calibration=None) == first
    assert store.check().clean


def test_records_are_listed_newest_first_and_shown(published: PromptStore) -> None:
    store = published
    made = [store.calibrate("acme", "sst2", 1, example_calibration(1.0 + n)) for n in range(3)]
    page = store.list_calibrations("acme", "sst2", 1, limit=2)
    assert list(page.items) == made[:0:-1]
    rest = store.list_calibrations("acme", "sst2", 1, cursor=page.next_cursor)
    assert (list(rest.items), rest.next_cursor) == ([made[0]], None)
    assert store.get_calibration("acme", "sst2", 1, 2) == made[1]
    with pytest.raises(NotFoundError) as caught:
        store.get_calibration("acme", "sst2", 1, 9)
    assert (caught.value.code, caught.value.field) == ("unknown_calibration", "calibration")
    with pytest.raises(NotFoundError) as caught:
        store.list_calibrations("acme", "sst2", 2)
    assert caught.value.code == "unknown_version"
    with pytest.raises(NotFoundError) as caught:
        store.calibrate("acme", "other", 1, example_calibration())
    assert caught.value.code == "unknown_task"


def test_the_same_again_changes_nothing(published: PromptStore) -> None:
    made = published.calibrate("acme", "sst2", 1, example_calibration())
    last = published.last_change()
    assert published.calibrate("acme", "sst2", 1, example_calibration()) == made
    assert published.last_change() == last
    assert [row.action for row in published.audit_rows("acme")].count("version.calibrate") == 1


def test_other_processes_are_told(published: PromptStore) -> None:
    last = published.last_change()
    published.calibrate("acme", "sst2", 1, example_calibration())
    (change,) = published.changes_after(last).items
    assert (change.kind, change.tenant, change.subject) == ("version_calibrated", "acme", "sst2@1")


def test_a_version_is_published_with_its_calibration_or_not_at_all(store: PromptStore) -> None:
    values, manifest = example_prompt(1, labels=("no", "yes"))
    made = store.publish("acme", "sst2", values, manifest, calibration=example_calibration(), created_by="b")
    assert made.version.calibration is not None
    assert (made.version.calibration.number, made.version.calibration.created_by) == (1, "b")
    # Twice changes nothing; another one is added to the version that is there; none leaves it.
    again = store.publish("acme", "sst2", values, manifest, calibration=example_calibration())
    assert again.version == made.version and not again.created
    other = store.publish("acme", "sst2", values, manifest, calibration=example_calibration(4.0))
    assert other.version.calibration is not None and other.version.calibration.number == 2
    assert store.publish("acme", "sst2", values, manifest).version == other.version
    with pytest.raises(InvalidError):
        store.publish("acme", "new", *example_prompt(2), calibration=example_calibration(0.01))
    with pytest.raises(NotFoundError):
        store.get_task("acme", "new")


def test_only_who_holds_the_job_may_add_one(published: PromptStore, clock: FakeClock) -> None:
    store = published
    store.create_job("acme", "tuning", {"base_fingerprint": "base"})
    claimed = store.claim_job("tuning", "one", 10, "base")
    assert claimed is not None
    assert store.calibrate("acme", "sst2", 1, example_calibration(), lease=claimed[1]).number == 1
    clock.advance(11)
    assert store.claim_job("tuning", "two", 10, "base") is not None
    with pytest.raises(LeaseLostError):
        store.calibrate("acme", "sst2", 1, example_calibration(5.0), lease=claimed[1])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"labels": ("yes",)}, "labels"),
        ({"labels": ("yes", "yes ")}, "labels.1"),
        ({"matrix_dtype": "f 32"}, "matrix_dtype"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": 20.1}, "temperature"),
        ({"prior": (1.0,)}, "prior"),
        ({"prior": (1.0, math.inf)}, "prior"),
        ({"rows": 49}, "rows"),
        ({"measures": {"ece": math.nan}}, "measures"),
        ({"source": {"file": "x" * 5000}}, "source"),
    ],
)
def test_what_cannot_be_one_is_refused_with_its_field(
    published: PromptStore, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidError) as caught:
        published.calibrate("acme", "sst2", 1, example_calibration(**fields))
    assert caught.value.field == field
    assert published.get_version("acme", "sst2", 1).calibration is None


@pytest.mark.parametrize("named", [False, True])
def test_a_purged_tenants_are_gone(published: PromptStore, clock: FakeClock, named: bool) -> None:
    """Also those of a version whose row stays because another tenant's ensemble names it."""
    store = published
    store.calibrate("acme", "sst2", 1, example_calibration())
    if named:
        store.create_tenant("birch")
        store.share("task", "acme", "sst2", "birch", ["infer"])
        store.publish_ensemble("birch", "team", [EnsembleMember("acme", "sst2", 1)])
    store.delete_tenant("acme", grace_seconds=0)
    clock.advance(1)
    store.purge_tenants()
    with store._database.read(EVERY_TENANT) as connection:
        assert connection.execute(select(func.count()).select_from(calibrations)).scalar_one() == 0
