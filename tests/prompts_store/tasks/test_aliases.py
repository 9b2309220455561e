import threading

import pytest

from prompts_store import PromptStore
from prompts_store.errors import ConflictError, InvalidError, NotFoundError
from prompts_store.tasks.aliasing import MAX_ALIASES
from prompts_store.testing import FakeClock, example_prompt


def publish_some(store: PromptStore, count: int) -> None:
    for seed in range(1, count + 1):
        values, manifest = example_prompt(seed)
        store.publish("acme", "sst2", values, manifest, created_by="maker")


def moves(store: PromptStore) -> list[tuple[str, int | None, int | None]]:
    return [(move.alias, move.version, move.previous) for move in store.alias_history("acme", "sst2").items]


def test_promote_and_its_history(store: PromptStore, clock: FakeClock) -> None:
    publish_some(store, 3)
    clock.advance(60)
    moved = store.set_alias("acme", "sst2", "live", 3, moved_by="ann")
    assert (moved.version, moved.previous, moved.moved_at, moved.moved_by) == (3, 1, clock(), "ann")
    store.set_alias("acme", "sst2", "canary", 2)
    assert store.resolve("sst2", tenant="acme").number == 3
    assert store.resolve("sst2@canary", tenant="acme").number == 2
    assert moves(store) == [("live", 1, None), ("live", 3, 1), ("canary", 2, None)]
    assert store.alias_history("acme", "sst2").items[0].moved_by == "maker"


def test_a_move_to_where_it_is_writes_nothing(store: PromptStore) -> None:
    publish_some(store, 1)
    moved = store.set_alias("acme", "sst2", "live", 1)
    assert (moved.version, moved.previous) == (1, 1)
    assert moves(store) == [("live", 1, None)]


def test_rollback_goes_back_one_step_each_time(store: PromptStore) -> None:
    publish_some(store, 4)
    store.set_alias("acme", "sst2", "live", 2)
    store.set_alias("acme", "sst2", "live", 3)
    assert store.rollback("acme", "sst2").version == 2
    assert store.rollback("acme", "sst2").version == 1
    with pytest.raises(ConflictError) as caught:
        store.rollback("acme", "sst2")
    assert caught.value.field == "alias"
    # A new promotion after a rollback goes back to where the rollback had led, not to what it had undone.
    store.set_alias("acme", "sst2", "live", 4)
    assert store.rollback("acme", "sst2").version == 1
    assert moves(store) == [
        ("live", 1, None),
        ("live", 2, 1),
        ("live", 3, 2),
        ("live", 2, 3),
        ("live", 1, 2),
        ("live", 4, 1),
        ("live", 1, 4),
    ]


def test_rollback_passes_over_what_was_deleted_and_over_itself(store: PromptStore) -> None:
    publish_some(store, 3)
    for number in (2, 1, 3):
        store.set_alias("acme", "sst2", "live", number)
    store.set_alias("acme", "sst2", "live", 1)
    store.delete_version("acme", "sst2", 3)
    # Before 1 it was 3 (deleted), 1 (the same), 2.
    assert store.rollback("acme", "sst2").version == 2


def test_other_aliases_have_their_own_history(store: PromptStore) -> None:
    publish_some(store, 3)
    store.set_alias("acme", "sst2", "canary", 2)
    store.set_alias("acme", "sst2", "live", 3)
    with pytest.raises(ConflictError):
        store.rollback("acme", "sst2", "canary")
    assert store.rollback("acme", "sst2").version == 1
    with pytest.raises(NotFoundError) as caught:
        store.rollback("acme", "sst2", "nothing")
    assert caught.value.code == "unknown_alias"


def test_a_removed_alias_is_unknown_and_goes_back_across_its_removal(store: PromptStore) -> None:
    publish_some(store, 2)
    store.remove_alias("acme", "sst2", "live")
    for attempt in (
        lambda: store.resolve("sst2", tenant="acme"),
        lambda: store.remove_alias("acme", "sst2", "live"),
        lambda: store.rollback("acme", "sst2"),
    ):
        with pytest.raises(NotFoundError) as caught:
            attempt()
        assert caught.value.code == "unknown_alias"
    store.set_alias("acme", "sst2", "live", 2)
    assert store.rollback("acme", "sst2").version == 1
    assert moves(store) == [("live", 1, None), ("live", None, 1), ("live", 2, None), ("live", 1, 2)]


def test_publishing_later_does_not_bring_live_back(store: PromptStore) -> None:
    publish_some(store, 1)
    store.remove_alias("acme", "sst2", "live")
    store.delete_version("acme", "sst2", 1)
    assert store.get_task("acme", "sst2").latest == 0
    values, manifest = example_prompt(2)
    store.publish("acme", "sst2", values, manifest)
    assert store.aliases("acme", "sst2") == {}


@pytest.mark.parametrize("alias", ["", "3", "Live", "a/b", "x" * 65, "3a"])
def test_bad_aliases_are_refused(store: PromptStore, alias: str) -> None:
    publish_some(store, 1)
    with pytest.raises(InvalidError) as caught:
        store.set_alias("acme", "sst2", alias, 1)
    assert (caught.value.code, caught.value.field) == ("invalid_alias", "alias")


def test_readers_see_one_version_or_the_other_while_live_moves(disk_store: PromptStore) -> None:
    publish_some(disk_store, 2)
    seen: set[int] = set()
    failures: list[BaseException] = []
    started, done = threading.Barrier(3), threading.Event()

    def read() -> None:
        started.wait()
        over = False
        while not over:  # once more after the last move: a busy machine may not come to it before
            over = done.is_set()
            try:
                seen.add(disk_store.resolve("sst2", tenant="acme").number)
            except Exception as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    started.wait()
    for step in range(50):
        disk_store.set_alias("acme", "sst2", "live", 1 + step % 2)
    done.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert seen <= {1, 2} and seen


def test_it_is_told_where_a_rollback_goes(store: PromptStore) -> None:
    """`rollbacks` says where `rollback` then goes; versions that were deleted are skipped."""
    publish_some(store, 6)
    assert store.rollbacks("acme", "sst2") == {}
    for number in (2, 3, 4, 5):
        store.set_alias("acme", "sst2", "live", number)
    store.set_alias("acme", "sst2", "canary", 5)
    store.set_alias("acme", "sst2", "canary", 6)
    assert store.rollbacks("acme", "sst2") == {"live": 4, "canary": 5}
    store.remove_alias("acme", "sst2", "canary")
    store.rollback("acme", "sst2")
    store.delete_version("acme", "sst2", 3)
    assert store.rollbacks("acme", "sst2") == {"live": 2}  # not 5, which the rollback left
    for went in (2, 1):
        assert store.rollbacks("acme", "sst2") == {"live": went}
        assert store.rollback("acme", "sst2").version == went
    assert store.rollbacks("acme", "sst2") == {}
    assert [move.version for move in store.alias_history("acme", "sst2", limit=2).items] == [2, 1]


def test_a_move_may_be_refused_where_the_alias_is_elsewhere(store: PromptStore) -> None:
    publish_some(store, 4)
    store.set_alias("acme", "sst2", "live", 2, expected=1)
    store.set_alias("acme", "sst2", "live", 3, expected=2)
    store.set_alias("acme", "sst2", "canary", 2, expected=0)
    before = moves(store)
    for refused in (
        lambda: store.set_alias("acme", "sst2", "live", 4, expected=2),
        lambda: store.set_alias("acme", "sst2", "live", 4, expected=0),
        lambda: store.set_alias("acme", "sst2", "canary", 4, expected=0),
        lambda: store.set_alias("acme", "sst2", "new", 4, expected=2),
        lambda: store.rollback("acme", "sst2", expected=2),
        lambda: store.rollback("acme", "sst2", version=1, expected=3),
        lambda: store.rollback("acme", "sst2", version=3),
    ):
        with pytest.raises(ConflictError) as caught:
            refused()
        assert caught.value.code == "alias_moved" and caught.value.field in ("expected", "version")
    assert moves(store) == before
    # It is there already: sent again, it succeeds.
    assert store.set_alias("acme", "sst2", "live", 3, expected=2).previous == 3
    assert store.rollback("acme", "sst2", version=2, expected=3).version == 2


def test_moves_come_in_pages_whatever_moves_meanwhile(store: PromptStore) -> None:
    """Each page is in order, and the next one has older moves."""
    publish_some(store, 9)
    for number in range(2, 10):
        store.set_alias("acme", "sst2", "live", number)
    page = store.alias_history("acme", "sst2", limit=4)
    found: list[int | None] = []
    store.set_alias("acme", "sst2", "canary", 1)
    while True:
        found = [*(move.version for move in page.items), *found]
        if page.next_cursor is None:
            break
        page = store.alias_history("acme", "sst2", limit=4, cursor=page.next_cursor)
    assert found == list(range(1, 10)) and len(page.items) == 1
    assert store.alias_history("acme", "sst2", limit=10).next_cursor is None
    for options in ({"limit": 0}, {"limit": 501}, {"cursor": "x"}, {"cursor": "WyJhbGlhc19tb3ZlcyIsMF0"}):
        with pytest.raises(InvalidError):
            store.alias_history("acme", "sst2", **options)  # type: ignore[arg-type]


def test_a_task_has_so_many_aliases(store: PromptStore) -> None:
    publish_some(store, 2)
    for number in range(1, MAX_ALIASES):  # beside `live`
        store.set_alias("acme", "sst2", f"a{number}", 1)
    with pytest.raises(ConflictError) as full:
        store.set_alias("acme", "sst2", "more", 1)
    assert (full.value.code, full.value.field) == ("too_many_aliases", "alias")
    store.set_alias("acme", "sst2", "a1", 2)  # what is there moves
    store.remove_alias("acme", "sst2", "a1")
    store.set_alias("acme", "sst2", "more", 1)
