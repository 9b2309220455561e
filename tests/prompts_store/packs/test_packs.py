"""Stored decision packs, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from prompts_store import PromptStore
from prompts_store.errors import ConflictError, InvalidError, NotFoundError
from prompts_store.records import PackEntry, Reference
from prompts_store.testing import FakeClock, example_prompt

VALUES = {"true": "yes", "false": "no"}


def entry(question: str, number: int = 1, labels: dict[str, str] | None = None, **of: str) -> PackEntry:
    return PackEntry(question, of.get("tenant", "acme"), of.get("task", "refund"), number, labels or {})


@pytest.fixture
def filled(store: PromptStore) -> PromptStore:
    """Two versions of `acme/refund` that answer yes or no, and one without labels."""
    for seed, labels in ((1, ("yes", "no")), (2, ("yes", "no")), (3, ())):
        values, manifest = example_prompt(seed, base_fingerprint="aa", labels=labels)
        store.publish("acme", "refund", values, manifest)
    return store


def test_a_pack_is_versioned_and_addressed_like_a_task(filled: PromptStore, clock: FakeClock) -> None:
    first, created = filled.publish_pack(
        "acme", "desk", [entry("refund", 1, VALUES), entry("질문", 2)], created_by="ann"
    )
    assert created
    assert (first.number, first.unknown_questions, first.created_at, first.created_by) == (
        1, "refuse", clock(), "ann",
    )  # fmt: skip
    assert first.entries == (entry("refund", 1, VALUES), entry("질문", 2))
    second, _ = filled.publish_pack("acme", "desk", [entry("refund", 1, VALUES), entry("질문", 2)], "base")
    assert second.number == 2 and second.digest != first.digest
    again = filled.publish_pack("acme", "desk", [entry("refund", 1, VALUES), entry("질문", 2)])
    assert again == (first, False)
    for reference, expected in (("desk", first), ("acme/desk@2", second), ("desk@live", first)):
        assert filled.resolve_pack(reference, tenant="acme") == expected
    assert filled.resolve_pack(Reference("acme", "desk"), tenant="acme") == first
    record = filled.get_pack("acme", "desk")
    assert (record.latest, record.aliases) == (second, {"live": 1})
    assert filled.last_pack_number("acme", "desk") == 2


def test_its_aliases_move_and_go_back(filled: PromptStore) -> None:
    for number in (1, 2):
        filled.publish_pack("acme", "desk", [entry("refund", number)])
    filled.set_pack_alias("acme", "desk", "live", 2)
    assert filled.resolve_pack("desk", tenant="acme").number == 2
    assert filled.rollback_pack("acme", "desk").version == 1
    filled.set_pack_alias("acme", "desk", "canary", 2)
    filled.remove_pack_alias("acme", "desk", "canary")
    history = [(move.alias, move.version) for move in filled.pack_alias_history("acme", "desk").items]
    assert history == [("live", 1), ("live", 2), ("live", 1), ("canary", 2), ("canary", None)]
    newest = filled.pack_alias_history("acme", "desk", limit=2).items
    assert [(move.alias, move.version) for move in newest] == history[-2:]


def test_its_versions_come_in_pages_newest_first_without_those_that_were_deleted(filled: PromptStore) -> None:
    filled.publish_pack("acme", "desk", [entry("old")])
    filled.delete_pack("acme", "desk")
    made = [filled.publish_pack("acme", "desk", [entry("refund", n)])[0] for n in (1, 2)]
    made.append(filled.publish_pack("acme", "desk", [entry("refund", 2)], "base")[0])
    first = filled.list_pack_versions("acme", "desk", limit=2)
    rest = filled.list_pack_versions("acme", "desk", limit=2, cursor=first.next_cursor)
    assert [*first.items, *rest.items] == made[::-1] and rest.next_cursor is None
    with pytest.raises(NotFoundError):
        filled.list_pack_versions("acme", "nothing")


def test_unknown_names_have_their_own_codes(filled: PromptStore) -> None:
    filled.publish_pack("acme", "desk", [entry("refund")])
    for reference, code in (
        ("nothing", "unknown_pack"),
        ("other/desk", "unknown_pack"),
        ("desk@2", "unknown_version"),
        ("desk@canary", "unknown_alias"),
    ):
        with pytest.raises(NotFoundError) as caught:
            filled.resolve_pack(reference, tenant="acme")
        assert (caught.value.code, caught.value.field) == (code, "pack")


@pytest.mark.parametrize(
    ("entries", "unknown", "field"),
    [
        ([], "refuse", "questions"),
        ([entry("refund")], "ask", "unknown_questions"),
        ([entry(f"q{i}") for i in range(401)], "refuse", "questions"),
        ([entry("")], "refuse", "questions"),
        ([entry("a\0b")], "refuse", "questions"),
        ([entry("refund"), entry("refund")], "refuse", "questions.refund"),
        ([entry("a b", 0)], "refuse", "questions.?.version"),
        ([entry("refund", tenant="A")], "refuse", "questions.refund.tenant"),
        ([entry("refund", 1, {"true": "maybe"})], "refuse", "questions.refund.values"),
        ([entry("refund", 1, {"true": "yes", "1": "yes"})], "refuse", "questions.refund.values"),
        ([entry("refund", 1, {"": "yes"})], "refuse", "questions.refund.values"),
        ([entry("refund", 3)], "refuse", "questions.refund"),
    ],
)
def test_bad_packs_are_refused(filled: PromptStore, entries: Any, unknown: Any, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        filled.publish_pack("acme", "desk", entries, unknown)
    assert caught.value.field == field
    assert filled.list_packs("acme").items == ()


def test_versions_exist_and_have_one_base(filled: PromptStore) -> None:
    with pytest.raises(NotFoundError) as missing:
        filled.publish_pack("acme", "desk", [entry("refund"), entry("urgent", 9)])
    assert (missing.value.code, missing.value.field) == ("unknown_version", "questions.urgent")
    filled.publish("acme", "refund", *example_prompt(4, base_fingerprint="bb", labels=("yes", "no")))
    with pytest.raises(InvalidError) as caught:
        filled.publish_pack("acme", "desk", [entry("refund"), entry("urgent", 4)])
    assert (caught.value.code, caught.value.field) == ("base_mismatch", "questions.urgent")


def test_what_a_pack_asks_stays_as_long_as_the_pack(filled: PromptStore) -> None:
    filled.publish_pack("acme", "desk", [entry("refund", 2)])
    filled.publish_pack("acme", "desk", [entry("refund", 1)])
    for attempt in (
        lambda: filled.delete_version("acme", "refund", 2),
        lambda: filled.delete_task("acme", "refund"),
    ):
        with pytest.raises(ConflictError, match="the pack 'desk'"):
            attempt()
    filled.delete_pack("acme", "desk")
    filled.delete_version("acme", "refund", 2)
    with pytest.raises(NotFoundError):
        filled.resolve_pack("desk@1", tenant="acme")
    again, created = filled.publish_pack("acme", "desk", [entry("refund", 1)])
    assert (again.number, created) == (3, True)
    assert filled.get_pack("acme", "desk").aliases == {"live": 3}


def test_a_granted_pack_is_resolved_by_the_grantee(filled: PromptStore) -> None:
    filled.create_tenant("birch")
    filled.publish_pack("acme", "desk", [entry("refund", 1)])
    with pytest.raises(NotFoundError):
        filled.resolve_pack("acme/desk", tenant="birch")
    filled.share("pack", "acme", "desk", "birch", ["infer"])
    found = filled.resolve_pack("acme/desk", tenant="birch")
    assert found.entries == (entry("refund", 1),)
    filled.delete_pack("acme", "desk")
    assert filled.list_shared("birch").items == ()


def test_pages(filled: PromptStore) -> None:
    for name in ("b", "a", "c"):
        filled.publish_pack("acme", name, [entry("refund")])
    page = filled.list_packs("acme", limit=2)
    assert [record.name for record in page.items] == ["a", "b"]
    rest = filled.list_packs("acme", limit=2, cursor=page.next_cursor)
    assert [record.name for record in rest.items] == ["c"]
    assert [record.name for record in filled.list_packs("acme", prefix="b").items] == ["b"]


def test_other_processes_are_told(filled: PromptStore) -> None:
    last = filled.last_change()
    filled.publish_pack("acme", "desk", [entry("refund")])
    filled.publish_pack("acme", "desk", [entry("refund")])
    filled.publish_pack("acme", "desk", [entry("refund")], "base")
    filled.set_pack_alias("acme", "desk", "live", 2)
    filled.share("pack", "acme", "desk", "birch", ["infer"])
    filled.unshare("pack", "acme", "desk", "birch")
    filled.delete_pack("acme", "desk")
    assert [(change.kind, change.subject) for change in filled.changes_after(last).items] == [
        ("pack_alias_moved", "desk@live"),
        ("pack_published", "desk@1"),
        ("pack_published", "desk@2"),
        ("pack_alias_moved", "desk@live"),
        ("pack_shared", "desk"),
        ("pack_unshared", "desk"),
        ("pack_alias_removed", "desk@live"),
        ("pack_deleted", "desk"),
    ]
