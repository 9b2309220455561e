import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prompts_store import PromptStore
from prompts_store.digests import manifest_digest
from prompts_store.errors import ConflictError, InvalidError, NotFoundError
from prompts_store.records import EnsembleMember, Published
from prompts_store.testing import FakeClock, example_prompt


def publish(
    store: PromptStore, seed: int, task: str = "sst2", tenant: str = "acme", **fields: Any
) -> Published:
    values, manifest = example_prompt(seed, **fields)
    return store.publish(tenant, task, values, manifest)


def test_a_version_is_what_was_published(store: PromptStore, clock: FakeClock) -> None:
    values, manifest = example_prompt(
        1,
        base_fingerprint="ab" * 32,
        template="review: {text}",
        labels=("negative", "positive"),
        settings={"max_new_tokens": 4, "stop": ["\n"], "temperature": 0.5},
    )
    published = store.publish(
        "acme",
        "sst2",
        values,
        manifest,
        created_by="key_1",
        lineage={"job": "j1", "data": {"sha256": "00"}},
        metrics={"accuracy": 0.9},
        description="Film reviews",
    )
    version = published.version
    assert published.created
    assert (version.tenant, version.task, version.number) == ("acme", "sst2", 1)
    assert version.manifest == manifest
    assert version.manifest_digest == manifest_digest(manifest)
    assert (version.created_at, version.created_by, version.deleted_at) == (clock(), "key_1", None)
    assert version.lineage == {"job": "j1", "data": {"sha256": "00"}}
    assert version.metrics == {"accuracy": 0.9}
    assert store.resolve("acme/sst2@1", tenant="acme") == version == store.get_version("acme", "sst2", 1)
    assert store.get_task("acme", "sst2").description == "Film reviews"
    read = store.values(manifest.digest)
    assert read.dtype == np.float32 and read.tobytes() == values.tobytes() and read.shape == values.shape


def test_live_goes_to_the_first_version_and_stays(store: PromptStore) -> None:
    publish(store, 1)
    publish(store, 2)
    assert store.resolve("sst2", tenant="acme").number == 1
    assert store.aliases("acme", "sst2") == {"live": 1}
    record = store.get_task("acme", "sst2")
    assert (record.versions, record.latest) == (2, 2)


def test_the_same_manifest_again_is_the_same_version(store: PromptStore) -> None:
    first = publish(store, 1, labels=("a", "b"))
    again = publish(store, 1, labels=("a", "b"))
    assert (again.created, again.version) == (False, first.version)
    other = publish(store, 1, labels=("b", "a"))
    assert (other.created, other.version.number) == (True, 2)
    assert other.version.manifest.digest == first.version.manifest.digest
    elsewhere = publish(store, 1, task="copy", labels=("a", "b"))
    assert (elsewhere.created, elsewhere.version.number) == (True, 1)


def test_equal_content_is_stored_once_and_goes_with_its_last_version(store: PromptStore) -> None:
    digest = publish(store, 1).version.manifest.digest
    publish(store, 1, task="copy", tenant="other", template="x {text}")
    assert store.check().blobs == 1
    store.delete_task("acme", "sst2")
    assert store.collect(grace_seconds=0).blobs == 0
    store.values(digest)
    store.delete_task("other", "copy")
    assert store.collect(grace_seconds=0).blobs == 1
    with pytest.raises(NotFoundError):
        store.values(digest)


def test_a_task_is_deleted_whole_and_its_numbers_go_on(store: PromptStore) -> None:
    publish(store, 1)
    publish(store, 2)
    store.delete_task("acme", "sst2")
    for attempt in (
        lambda: store.get_task("acme", "sst2"),
        lambda: store.resolve("sst2", tenant="acme"),
        lambda: store.resolve("sst2@1", tenant="acme"),
        lambda: store.list_versions("acme", "sst2"),
        lambda: store.aliases("acme", "sst2"),
        lambda: store.alias_history("acme", "sst2"),
        lambda: store.delete_task("acme", "sst2"),
        lambda: store.delete_version("acme", "sst2", 1),
    ):
        with pytest.raises(NotFoundError) as caught:
            attempt()
        assert caught.value.code == "unknown_task"
    again = publish(store, 1)
    assert (again.created, again.version.number) == (True, 3)
    assert store.aliases("acme", "sst2") == {"live": 3}
    assert [move.version for move in store.alias_history("acme", "sst2").items] == [1, None, 3]
    assert store.get_task("acme", "sst2").versions == 1
    with pytest.raises(NotFoundError) as caught:
        store.get_version("acme", "sst2", 1)
    assert caught.value.code == "unknown_version"


def test_a_deleted_version_is_gone_and_its_number_too(store: PromptStore) -> None:
    publish(store, 1)
    publish(store, 2)
    store.delete_version("acme", "sst2", 2)
    with pytest.raises(NotFoundError) as caught:
        store.resolve("sst2@2", tenant="acme")
    assert caught.value.code == "unknown_version"
    with pytest.raises(NotFoundError):
        store.delete_version("acme", "sst2", 2)
    with pytest.raises(NotFoundError):
        store.set_alias("acme", "sst2", "canary", 2)
    assert publish(store, 2).version.number == 3
    record = store.get_task("acme", "sst2")
    assert (record.versions, record.latest) == (2, 3)


def test_what_an_alias_or_an_ensemble_names_is_not_deleted(store: PromptStore) -> None:
    publish(store, 1)
    publish(store, 2)
    with pytest.raises(ConflictError, match="'live'"):
        store.delete_version("acme", "sst2", 1)
    store.publish_ensemble("acme", "team", [EnsembleMember("acme", "sst2", 2)])
    with pytest.raises(ConflictError, match="'team'"):
        store.delete_version("acme", "sst2", 2)
    with pytest.raises(ConflictError, match="'team'"):
        store.delete_task("acme", "sst2")
    assert store.get_task("acme", "sst2").versions == 2
    store.delete_ensemble("acme", "team")
    store.delete_version("acme", "sst2", 2)
    store.delete_task("acme", "sst2")


def test_a_task_is_deleted_with_its_only_version_and_not_with_others(store: PromptStore) -> None:
    publish(store, 1)
    publish(store, 2)
    with pytest.raises(ConflictError, match="not the only one"):
        store.delete_task("acme", "sst2", only_version=1)
    store.delete_version("acme", "sst2", 2)
    with pytest.raises(ConflictError, match="not the only one"):
        store.delete_task("acme", "sst2", only_version=2)
    assert store.get_task("acme", "sst2").versions == 1
    store.delete_task("acme", "sst2", only_version=1)
    with pytest.raises(NotFoundError):
        store.get_task("acme", "sst2")


def test_unknown_names_have_their_own_codes(store: PromptStore) -> None:
    publish(store, 1)
    for reference, code in (
        ("nothing", "unknown_task"),
        ("other/sst2", "unknown_task"),
        ("sst2@2", "unknown_version"),
        ("sst2@canary", "unknown_alias"),
    ):
        with pytest.raises(NotFoundError) as caught:
            store.resolve(reference, tenant="acme", field="requests.0.task")
        assert (caught.value.code, caught.value.field) == (code, "requests.0.task")


def test_tenants_do_not_share_names(store: PromptStore) -> None:
    publish(store, 1)
    publish(store, 2, tenant="other")
    mine, theirs = store.resolve("sst2", tenant="acme"), store.resolve("sst2", tenant="other")
    assert mine.manifest.digest != theirs.manifest.digest
    store.delete_task("acme", "sst2")
    assert store.resolve("sst2", tenant="other") == theirs


_BAD: list[tuple[dict[str, Any], str]] = [
    ({"tenant": "Acme"}, "tenant"),
    ({"task": "a/b"}, "task"),
    ({"created_by": "x" * 257}, "created_by"),
    ({"created_by": "nul\0"}, "created_by"),
    ({"description": "\ud800"}, "description"),
    ({"description": "x" * 4097}, "description"),
    ({"lineage": {"x": math.nan}}, "lineage"),
    ({"lineage": {"x": "\ud800"}}, "lineage"),
    ({"lineage": {"x": b"bytes"}}, "lineage"),
    ({"lineage": {1: "x"}}, "lineage"),
    ({"lineage": {"x": "y" * 70_000}}, "lineage"),
    ({"lineage": ["not", "an", "object"]}, "lineage"),
    ({"metrics": {"accuracy": math.inf}}, "metrics"),
    ({"metrics": {"accuracy": "high"}}, "metrics"),
    ({"metrics": {"accuracy": True}}, "metrics"),
    ({"metrics": {"accuracy": 10**400}}, "metrics"),
]


@pytest.mark.parametrize(("arguments", "field"), _BAD, ids=[f"{f}-{i}" for i, (_, f) in enumerate(_BAD)])
def test_a_bad_argument_is_named_and_nothing_is_stored(
    store: PromptStore, arguments: dict[str, Any], field: str
) -> None:
    values, manifest = example_prompt(1)
    given = {"tenant": "acme", "task": "sst2", "values": values, "manifest": manifest, **arguments}
    with pytest.raises(InvalidError) as caught:
        store.publish(**given)
    assert caught.value.field == field
    _assert_empty(store)


def _nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"digest": "0" * 64}, "digest"),
        ({"length": 4}, "values"),
        ({"length": np.int64(3)}, "length"),
        ({"width": 0}, "width"),
        ({"kind": "lora"}, "kind"),
        ({"base_fingerprint": "not a fingerprint\n"}, "base_fingerprint"),
        ({"template": "{text.__class__}"}, "template"),
        ({"template": "no field"}, "template"),
        ({"labels": ("a", "a")}, "labels.1"),
        ({"settings": {"temperature": math.nan}}, "settings"),
        ({"settings": {"stop": _nested(100)}}, "settings"),
        ({"settings": {"stop": _nested(100_000)}}, "settings"),
    ],
)
def test_a_bad_manifest_is_refused(store: PromptStore, changes: dict[str, Any], field: str) -> None:
    values, manifest = example_prompt(1)
    with pytest.raises(InvalidError) as caught:
        store.publish("acme", "sst2", values, replace(manifest, **changes))
    assert caught.value.field == field
    _assert_empty(store)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: values.astype(np.float64),
        lambda values: values.astype(">f4"),
        lambda values: values[0],
        lambda values: values[:0],
        lambda values: np.where(values == values[1, 1], np.nan, values).astype(np.float32),
        lambda values: np.where(values == values[1, 1], np.inf, values).astype(np.float32),
        lambda values: values.tolist(),
    ],
)
def test_bad_values_are_refused(store: PromptStore, spoil: Any) -> None:
    values, manifest = example_prompt(1)
    with pytest.raises(InvalidError) as caught:
        store.publish("acme", "sst2", spoil(values), manifest)
    assert caught.value.field == "values"
    _assert_empty(store)


def test_memory_order_does_not_matter(store: PromptStore) -> None:
    values, manifest = example_prompt(1)
    store.publish("acme", "sst2", np.asfortranarray(values), manifest)
    assert store.values(manifest.digest).tobytes() == values.tobytes()


def _assert_empty(store: PromptStore) -> None:
    report = store.check()
    assert report.clean
    assert (report.versions, report.blobs, report.orphans, report.temporary_files) == (0, 0, 0, 0)
