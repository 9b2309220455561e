from typing import Any

import pytest

from prompts_store import PromptStore
from prompts_store.errors import ConflictError, InvalidError, NotFoundError
from prompts_store.records import EnsembleMember, Reference
from prompts_store.testing import FakeClock, example_prompt


def member(number: int, weight: float = 1.0, tenant: str = "acme") -> EnsembleMember:
    return EnsembleMember(tenant, "sst2", number, weight)


@pytest.fixture
def filled(store: PromptStore) -> PromptStore:
    """Three versions of `acme/sst2`: the last of an unknown base."""
    for seed in (1, 2, 3):
        values, manifest = example_prompt(seed, base_fingerprint=None if seed == 3 else "aa")
        store.publish("acme", "sst2", values, manifest)
    return store


def test_an_ensemble_is_versioned_and_addressed_like_a_task(filled: PromptStore, clock: FakeClock) -> None:
    first, created = filled.publish_ensemble("acme", "team", [member(2), member(1, 2.5)], created_by="ann")
    assert created
    assert (first.number, first.vote, first.created_at, first.created_by) == (1, "majority", clock(), "ann")
    assert first.members == (member(2), member(1, 2.5))
    second, _ = filled.publish_ensemble("acme", "team", [member(1, 2.5), member(2)])
    assert second.number == 2 and second.digest != first.digest
    assert filled.publish_ensemble("acme", "team", [member(2, 1), member(1, 2.5)]) == (first, False)
    for reference, expected in (("team", first), ("acme/team@2", second), ("team@live", first)):
        assert filled.resolve_ensemble(reference, tenant="acme") == expected
    assert filled.resolve_ensemble(Reference("acme", "team"), tenant="acme") == first
    record = filled.get_ensemble("acme", "team")
    assert (record.latest, record.aliases) == (second, {"live": 1})


def test_its_aliases_move_and_go_back(filled: PromptStore) -> None:
    for members in ([member(1)], [member(2)], [member(3)]):
        filled.publish_ensemble("acme", "team", members)
    filled.set_ensemble_alias("acme", "team", "live", 3, moved_by="ann")
    filled.set_ensemble_alias("acme", "team", "canary", 2)
    assert filled.resolve_ensemble("team", tenant="acme").number == 3
    assert filled.rollback_ensemble("acme", "team").version == 1
    with pytest.raises(ConflictError):
        filled.rollback_ensemble("acme", "team")
    filled.remove_ensemble_alias("acme", "team", "canary")
    history = [(move.alias, move.version) for move in filled.ensemble_alias_history("acme", "team").items]
    assert history == [("live", 1), ("live", 3), ("canary", 2), ("live", 1), ("canary", None)]
    with pytest.raises(NotFoundError) as caught:
        filled.set_ensemble_alias("acme", "team", "live", 4)
    assert caught.value.code == "unknown_version"


def test_unknown_names_have_their_own_codes(filled: PromptStore) -> None:
    filled.publish_ensemble("acme", "team", [member(1)])
    for reference, code in (
        ("nothing", "unknown_ensemble"),
        ("other/team", "unknown_ensemble"),
        ("team@2", "unknown_version"),
        ("team@canary", "unknown_alias"),
    ):
        with pytest.raises(NotFoundError) as caught:
            filled.resolve_ensemble(reference, tenant="acme")
        assert (caught.value.code, caught.value.field) == (code, "ensemble")
    with pytest.raises(NotFoundError):
        filled.get_ensemble("acme", "nothing")


@pytest.mark.parametrize(
    ("members", "vote", "field"),
    [
        ([], "majority", "members"),
        ([member(1)] * 65, "majority", "members"),
        ([member(1), member(1)], "majority", "members.1"),
        ([member(1)], "average", "vote"),
        ([member(1, 0.0)], "majority", "members.0.weight"),
        ([member(1, float("nan"))], "majority", "members.0.weight"),
        ([member(1, 10**400)], "majority", "members.0.weight"),
        ([member(0)], "majority", "members.0.version"),
        ([member(1, tenant="A")], "majority", "members.0.tenant"),
    ],
)
def test_bad_ensembles_are_refused(filled: PromptStore, members: Any, vote: Any, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        filled.publish_ensemble("acme", "team", members, vote)
    assert caught.value.field == field
    assert filled.list_ensembles("acme").items == ()


def test_members_exist_and_have_one_base(filled: PromptStore) -> None:
    with pytest.raises(NotFoundError) as missing:
        filled.publish_ensemble("acme", "team", [member(1), member(9)])
    assert (missing.value.code, missing.value.field) == ("unknown_version", "members.1")
    values, manifest = example_prompt(4, base_fingerprint="bb")
    filled.publish("acme", "sst2", values, manifest)
    with pytest.raises(InvalidError) as caught:
        filled.publish_ensemble("acme", "team", [member(3), member(1), member(4)])
    assert (caught.value.code, caught.value.field) == ("base_mismatch", "members.2")
    values, manifest = example_prompt(5, width=6)
    filled.publish("acme", "sst2", values, manifest)
    with pytest.raises(InvalidError):
        filled.publish_ensemble("acme", "team", [member(3), member(5)])
    with pytest.raises(NotFoundError):
        filled.get_ensemble("acme", "team")


def test_deleted_and_made_again_its_numbers_go_on(filled: PromptStore) -> None:
    filled.publish_ensemble("acme", "team", [member(1)])
    filled.delete_ensemble("acme", "team")
    for attempt in (
        lambda: filled.resolve_ensemble("team@1", tenant="acme"),
        lambda: filled.delete_ensemble("acme", "team"),
    ):
        with pytest.raises(NotFoundError):
            attempt()
    again, created = filled.publish_ensemble("acme", "team", [member(1)])
    assert (again.number, created) == (2, True)
    assert filled.get_ensemble("acme", "team").aliases == {"live": 2}
    with pytest.raises(NotFoundError):
        filled.resolve_ensemble("team@1", tenant="acme")


def test_the_list_goes_by_name_in_pages(filled: PromptStore) -> None:
    for name in ("b", "a2", "a1", "c"):
        filled.publish_ensemble("acme", name, [member(1)])
        filled.publish_ensemble("acme", name, [member(2)])
    filled.publish("other", "sst2", *example_prompt(1))
    filled.publish_ensemble("other", "a3", [member(1, tenant="other")])
    first = filled.list_ensembles("acme", limit=3)
    assert [(item.name, item.latest.number) for item in first.items] == [("a1", 2), ("a2", 2), ("b", 2)]
    rest = filled.list_ensembles("acme", limit=3, cursor=first.next_cursor)
    assert [item.name for item in rest.items] == ["c"] and rest.next_cursor is None
    assert [item.name for item in filled.list_ensembles("acme", prefix="a").items] == ["a1", "a2"]
