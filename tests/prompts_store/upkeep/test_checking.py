import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.errors import CorruptError, StoreError
from prompts_store.records import EnsembleMember
from prompts_store.testing import FakeClock, example_prompt
from tests.prompts_store.usage.usage_rows import REPLICA, row


@pytest.fixture
def filled(disk_store: PromptStore) -> PromptStore:
    """Two tasks that share content, an ensemble, a tombstone; a tenant with a key and usage."""
    for task, seeds in (("a", (1, 2, 3)), ("b", (1,))):
        for seed in seeds:
            values, manifest = example_prompt(seed, labels=("yes", "no"))
            disk_store.publish("acme", task, values, manifest)
    disk_store.publish_ensemble(
        "acme", "team", [EnsembleMember("acme", "a", 1), EnsembleMember("acme", "b", 1)]
    )
    disk_store.share("task", "acme", "a", "*", ["infer"])
    disk_store.share("ensemble", "acme", "team", "birch", ["infer"])
    disk_store.delete_version("acme", "a", 3)
    disk_store.create_tenant("birch")
    disk_store.create_key("birch", "app", scopes=["infer"])
    now = disk_store._clock()
    disk_store.record_usage(REPLICA, [row(number, at=now, tenant="acme") for number in (1, 2)])
    return disk_store


def blob_path(tmp_path: Path, seed: int) -> Path:
    digest = example_prompt(seed)[1].digest
    return tmp_path / "data" / "blobs" / digest[:2] / f"{digest}.npy"


def test_a_sound_store_is_clean(filled: PromptStore) -> None:
    report = filled.check()
    assert report.clean
    assert (report.versions, report.blobs, report.orphans, report.temporary_files) == (3, 3, 0, 0)


def test_usage_of_which_rows_were_dropped_is_sound(filled: PromptStore, clock: FakeClock) -> None:
    clock.advance(100 * 86_400)
    filled.record_usage(REPLICA, [row(3, at=clock(), tenant="acme")])
    assert filled.drop_usage() == 2
    assert filled.check().clean


def _flip_last_bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damage", [_flip_last_bit, lambda content: content[:-1], lambda content: b""])
def test_a_damaged_blob_is_found_told_and_mended_by_its_upload(
    filled: PromptStore, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = blob_path(tmp_path, 1)
    path.write_bytes(damage(path.read_bytes()))
    for repair in (False, True):
        problems = filled.check(repair=repair).problems
        assert [(found.kind, found.where, found.repaired) for found in problems] == [
            ("corrupt_blob", path.stem, False)
        ]
    with pytest.raises(CorruptError) as caught:
        filled.values(path.stem)
    assert caught.value.code == "corrupt_blob"
    values, manifest = example_prompt(1, labels=("yes", "no"))
    assert not filled.publish("acme", "a", values, manifest).created
    assert filled.check().clean
    assert filled.values(path.stem).tobytes() == values.tobytes()


def test_a_missing_blob_is_found_and_told(filled: PromptStore, tmp_path: Path) -> None:
    path = blob_path(tmp_path, 2)
    path.unlink()
    assert [(found.kind, found.where) for found in filled.check().problems] == [("missing_blob", path.stem)]
    with pytest.raises(CorruptError, match="missing"):
        filled.values(path.stem)
    with pytest.raises(CorruptError), filled.hold(filled.resolve("a@2", tenant="acme")):
        filled.values(path.stem)


def test_a_check_does_not_wait_for_writers(filled: PromptStore, tmp_path: Path) -> None:
    """Nor they for it: it reads snapshots. The control, a repair, needs the lock."""
    with closing(sqlite3.connect(tmp_path / "data" / "chorus.db")) as raw:
        raw.executescript("UPDATE tasks SET live_versions = 9 WHERE name = 'a'")
    with closing(PromptStore.open(tmp_path / "data")) as beside:
        beside._database.patience_seconds = 0.01
        with filled._database.write(EVERY_TENANT):
            assert [problem.kind for problem in beside.check().problems] == ["wrong_task"]
            with pytest.raises(StoreError, match="locked"):
                beside.check(repair=True)


def test_a_tombstone_needs_no_blob(filled: PromptStore, tmp_path: Path) -> None:
    blob_path(tmp_path, 3).unlink()
    assert filled.check().clean
    assert filled.collect(grace_seconds=0).blobs == 0


_TAMPERED = [
    ("UPDATE blobs SET reference_count = 7 WHERE reference_count = 2", "wrong_count", True),
    ("UPDATE tasks SET live_versions = 9 WHERE name = 'a'", "wrong_task", True),
    ("UPDATE tasks SET last_number = 1 WHERE name = 'a'", "wrong_task", True),
    ("DELETE FROM task_labels WHERE label = 'yes' AND name = 'a'", "wrong_labels", True),
    ("UPDATE versions SET template = 'other {text}' WHERE number = 2", "wrong_manifest", False),
    ("UPDATE aliases SET number = 3 WHERE owner_id = 1", "dangling_alias", False),
    ("UPDATE ensemble_versions SET deleted_at = 1", "dangling_alias", False),
    ("UPDATE grants SET name = 'c' WHERE kind = 'task'", "dangling_grant", True),
    ("UPDATE grants SET name = 'c' WHERE kind = 'ensemble'", "dangling_grant", True),
    ("DELETE FROM versions WHERE number = 1", "database", False),
    ("DROP TRIGGER audit_not_changed; UPDATE audit SET actor = 'bob'", "audit_log", False),
    ("DROP TRIGGER audit_heads_not_removed; DELETE FROM audit_heads", "audit_log", False),
    ("UPDATE stored_use SET prompts = 9 WHERE tenant = 'acme'", "wrong_use", True),
    ("UPDATE stored_use SET file_bytes = -1", "wrong_use", True),
    ("DELETE FROM stored_use", "wrong_use", True),
    ("UPDATE tenants SET limits = '[]'", "wrong_limits", False),
    ("UPDATE keys SET limits = '{'", "wrong_limits", False),
    ("UPDATE keys SET tenant = 'nobody'", "lost_key", False),
    ("DELETE FROM changes WHERE number = 2", "wrong_changes", False),
    ("DELETE FROM usage WHERE sequence = 1", "wrong_usage", False),
    ("UPDATE usage_hours SET tokens_in = 0", "wrong_usage", False),
    ("DELETE FROM usage_hours", "wrong_usage", False),
    ("UPDATE usage_days SET work_units = 0", "wrong_usage", False),
    ("DELETE FROM usage_days", "wrong_usage", False),
]


@pytest.mark.parametrize(
    ("statements", "kind", "mends"), _TAMPERED, ids=[kind + s[:25] for s, kind, _ in _TAMPERED]
)
def test_a_promise_not_kept_is_found(
    filled: PromptStore, tmp_path: Path, statements: str, kind: str, mends: bool
) -> None:
    with closing(sqlite3.connect(tmp_path / "data" / "chorus.db")) as raw:
        raw.executescript(statements)
    found = filled.check().problems
    assert kind in [problem.kind for problem in found]
    assert not any(problem.repaired for problem in found)
    repaired = [problem.kind for problem in filled.check(repair=True).problems if problem.repaired]
    assert (kind in repaired) == mends
    assert filled.check().clean == mends


def test_a_check_ends_where_it_is_told_to(filled: PromptStore) -> None:
    """Before a blob, or a data file."""
    asked: list[None] = []
    report = filled.check(going_on=lambda: asked.append(None))
    assert len(asked) == report.blobs + report.files > 1

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filled.check(going_on=stop)
