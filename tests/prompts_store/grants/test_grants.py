"""Grants in the store: what stands, what it gives, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from prompts_store import PromptStore
from prompts_store.errors import ConflictError, InvalidError, NotFoundError
from prompts_store.grants import grants as grants_module
from prompts_store.grants.records import GrantKind
from prompts_store.records import EnsembleMember
from prompts_store.testing import FakeClock, example_prompt

Ask = Callable[[PromptStore], object]


@pytest.fixture
def filled(store: PromptStore) -> PromptStore:
    """Three tenants; one of them has a task and an ensemble of it."""
    for tenant in ("acme", "birch", "cedar"):
        store.create_tenant(tenant)
    store.publish("acme", "sst2", *example_prompt(1))
    store.publish_ensemble("acme", "team", [EnsembleMember("acme", "sst2", 1)])
    return store


def may(store: PromptStore, tenant: str = "birch") -> set[str]:
    """What a tenant may do with the task and the ensemble, by each way to ask."""
    ways: dict[str, Ask] = {
        "infer": lambda store: store.resolve("acme/sst2", tenant=tenant),
        "read": lambda store: store.resolve("acme/sst2", tenant=tenant, right="read"),
        "vote": lambda store: store.resolve_ensemble("acme/team", tenant=tenant),
        "see the team": lambda store: store.resolve_ensemble("acme/team", tenant=tenant, right="read"),
    }
    found = set()
    for name, ask in ways.items():
        try:
            ask(store)
            found.add(name)
        except NotFoundError as error:
            assert error.code in ("unknown_task", "unknown_ensemble")
    return found


def test_a_grant_gives_its_rights_to_its_grantee(filled: PromptStore, clock: FakeClock) -> None:
    assert may(filled) == set()
    made = filled.share("task", "acme", "sst2", "birch", ["read", "infer"], created_by="ann")
    assert (made.rights, made.created_at, made.created_by) == (("infer", "read"), clock(), "ann")
    assert may(filled) == {"infer", "read"} and may(filled, "cedar") == set()
    filled.share("ensemble", "acme", "team", "*", ["infer"])
    assert may(filled) == {"infer", "read", "vote"} and may(filled, "cedar") == {"vote"}
    clock.advance(1)
    assert filled.share("task", "acme", "sst2", "birch", {"infer", "read"}) == made, "nothing new"
    filled.share("task", "acme", "sst2", "birch", ["infer"])
    assert may(filled) == {"infer", "vote"}
    assert [grant.rights for grant in filled.list_grants("task", "acme", "sst2")] == [("infer",)]
    filled.unshare("task", "acme", "sst2", "birch")
    filled.unshare("ensemble", "acme", "team", "*")
    assert may(filled) == may(filled, "cedar") == set()
    for kind, name, grantee in (("task", "sst2", "birch"), ("ensemble", "team", "birch")):
        with pytest.raises(NotFoundError) as caught:
            filled.unshare(kind, "acme", name, grantee)  # type: ignore[arg-type]
        assert caught.value.code == "unknown_grant"


def test_a_suspended_or_deleted_owner_shares_nothing(filled: PromptStore) -> None:
    filled.share("task", "acme", "sst2", "birch", ["infer"])
    filled.suspend_tenant("acme")
    assert may(filled) == set() and filled.list_shared("birch").items == ()
    assert filled.resolve("sst2", tenant="acme").number == 1
    filled.resume_tenant("acme")
    assert may(filled) == {"infer"} and len(filled.list_shared("birch").items) == 1
    filled.delete_tenant("acme", grace_seconds=60)
    assert may(filled) == set() and filled.list_shared("birch").items == ()


@pytest.mark.parametrize("kind", ["task", "ensemble"])
def test_a_grant_ends_with_what_it_is_of(filled: PromptStore, kind: Any) -> None:
    filled.share("task", "acme", "sst2", "birch", ["infer"])
    filled.share("ensemble", "acme", "team", "birch", ["infer"])
    filled.delete_ensemble("acme", "team")
    if kind == "task":
        filled.delete_task("acme", "sst2")
    filled.publish("acme", "sst2", *example_prompt(1))
    filled.publish_ensemble("acme", "team", [EnsembleMember("acme", "sst2", 1 if kind != "task" else 2)])
    assert may(filled) == ({"infer"} if kind == "ensemble" else set())
    told = [row.subject for row in filled.audit_rows("birch", limit=500) if row.action.endswith("unshare")]
    assert told == (["acme/team"] if kind == "ensemble" else ["acme/team", "acme/sst2"])


def test_members_of_other_tenants_take_a_grant(filled: PromptStore) -> None:
    members = [EnsembleMember("acme", "sst2", 1)]
    filled.share("task", "acme", "sst2", "birch", ["read"])
    with pytest.raises(NotFoundError) as caught:
        filled.publish_ensemble("birch", "mix", members)
    assert (caught.value.code, caught.value.field) == ("unknown_task", "members.0")
    filled.share("task", "acme", "sst2", "birch", ["infer"])
    assert filled.publish_ensemble("birch", "mix", members)[1]
    with pytest.raises(ConflictError, match="'team'"):
        filled.delete_task("acme", "sst2")
    filled.delete_ensemble("acme", "team")
    filled.delete_task("acme", "sst2")  # what birch made of it keeps nobody from that
    assert filled.resolve_ensemble("mix", tenant="birch").members == tuple(members)
    assert filled.check().clean


@contextmanager
def statements(store: PromptStore) -> Iterator[list[str]]:
    """The statements that are executed inside."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    engine = store._database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_what_is_not_shared_and_what_is_not_there_execute_the_same(filled: PromptStore) -> None:
    """Also a right that is missing, and an owner that is not there."""
    filled.share("ensemble", "acme", "team", "birch", ["read"])
    filled.share("task", "acme", "sst2", "cedar", ["infer"])
    for ask, references in (
        (filled.resolve, ("acme/sst2", "acme/sst2@9", "acme/sst2@no", "acme/none", "none/none")),
        (filled.resolve_ensemble, ("acme/team", "acme/team@9", "acme/none", "none/none")),
    ):
        found = []
        for reference in references:
            with statements(filled) as seen, pytest.raises(NotFoundError) as caught:
                ask(reference, tenant="birch")  # type: ignore[operator]
            told = caught.value.message.replace(reference.partition("@")[0], "NAME")
            found.append((caught.value.code, caught.value.field, told, *seen))
        assert len(set(found)) == 1, found
    with statements(filled) as seen, pytest.raises(NotFoundError):
        filled.resolve("none", tenant="birch")
    assert seen != list(found[0][3:]), "the control: one's own is looked up otherwise"


def test_the_list_of_what_is_shared_comes_in_pages(filled: PromptStore) -> None:
    for tenant in ("birch", "cedar"):
        for number in range(3):
            filled.publish(tenant, f"t{number}", *example_prompt(number))
            for grantee in ("acme", "*"):
                filled.share("task", tenant, f"t{number}", grantee, ["infer" if grantee == "*" else "read"])
    filled.share("ensemble", "acme", "team", "*", ["read"])
    found, cursor = [], None
    while True:
        page = filled.list_shared("acme", limit=2, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert [(item.tenant, item.name) for item in found] == [
        (tenant, f"t{number}") for tenant in ("birch", "cedar") for number in range(3)
    ]
    assert {item.rights for item in found} == {("infer", "read")}
    assert [item.name for item in filled.list_shared("birch", kind="ensemble").items] == ["team"]
    for cursor in ("nonsense", "WyJzaGFyZWQiLCJhIl0", filled.list_tasks("birch", limit=1).next_cursor):
        with pytest.raises(InvalidError) as caught:
            filled.list_shared("acme", cursor=cursor)
        assert caught.value.code == "invalid_cursor"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("job", "acme", "sst2", "birch", ["infer"]), "kind"),
        (("task", "Acme", "sst2", "birch", ["infer"]), "tenant"),
        (("task", "acme", "Sst2", "birch", ["infer"]), "task"),
        (("task", "acme", "sst2", "Birch", ["infer"]), "grantee"),
        (("task", "acme", "sst2", "acme", ["infer"]), "grantee"),
        (("task", "acme", "sst2", "birch", []), "rights"),
        (("task", "acme", "sst2", "birch", "infer"), "rights"),
        (("task", "acme", "sst2", "birch", ["infer", "write"]), "rights.1"),
    ],
)
def test_bad_grants_name_the_field(filled: PromptStore, arguments: Any, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        filled.share(*arguments)
    assert caught.value.field == field
    assert filled.list_grants("task", "acme", "sst2") == []


def test_grants_are_of_what_is_there_and_are_bounded(
    filled: PromptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent: list[tuple[GrantKind, str, str]] = [
        ("task", "none", "unknown_task"), ("ensemble", "sst2", "unknown_ensemble"),
    ]  # fmt: skip
    for kind, name, code in absent:
        asks: list[Ask] = [
            lambda store, kind=kind, name=name: store.share(kind, "acme", name, "birch", ["infer"]),
            lambda store, kind=kind, name=name: store.unshare(kind, "acme", name, "birch"),
            lambda store, kind=kind, name=name: store.list_grants(kind, "acme", name),
        ]
        for ask in asks:
            with pytest.raises(NotFoundError) as caught:
                ask(filled)
            assert caught.value.code == code
    monkeypatch.setattr(grants_module, "MAX_GRANTS", 2)
    for grantee in ("x", "y"):
        filled.share("task", "acme", "sst2", grantee, ["infer"])
    with pytest.raises(ConflictError) as full:
        filled.share("task", "acme", "sst2", "z", ["infer"])
    assert full.value.code == "too_many_grants"
    filled.share("task", "acme", "sst2", "x", ["read"])  # one that is there may change
    filled.share("ensemble", "acme", "team", "z", ["read"])
