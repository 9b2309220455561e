import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import event

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.errors import ConflictError, InvalidError, NotFoundError
from prompts_store.tenants import keys as keys_module
from prompts_store.tenants.key_format import key_digest, make_key, matches, public_part
from prompts_store.tenants.limits import Amounts, KeyLimits, TenantLimits
from prompts_store.tenants.records import Key
from prompts_store.testing import FakeClock


@pytest.fixture(autouse=True)
def tenants(store: PromptStore) -> None:
    store.create_tenant("acme", weight=3, limits=TenantLimits(per_minute=Amounts(requests=7)))
    store.create_tenant("other")


def create(store: PromptStore, tenant: str = "acme", name: str = "app", **options: Any) -> tuple[Key, str]:
    return store.create_key(tenant, name, **{"scopes": ["infer"], **options})


@contextmanager
def statements(store: PromptStore) -> Iterator[list[str]]:
    """What is sent to the database inside, without what begins a transaction."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if not statement.startswith(("BEGIN", "SET ")):
            sent.append(statement)

    event.listen(store._database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(store._database.engine, "before_cursor_execute", note)


def test_a_new_key_is_shown_once_and_kept_as_its_digest(store: PromptStore, clock: FakeClock) -> None:
    expires = clock() + timedelta(days=30)
    made, secret = create(
        store,
        scopes=["tune", "infer", "tune"],
        tasks=["sst2", "eu-*"],
        limits=KeyLimits(per_minute=Amounts(requests=5)),
        expires_at=expires,
        created_by="ann",
    )
    assert made == Key(
        id=made.id,
        tenant="acme",
        public=secret[3:11],
        name="app",
        scopes=("infer", "tune"),
        tasks=("sst2", "eu-*"),
        limits=KeyLimits(per_minute=Amounts(requests=5)),
        created_at=clock(),
        created_by="ann",
        expires_at=expires,
    )
    assert public_part(secret) == made.public and made.id.startswith("key-")
    assert store.get_key("acme", made.id) == made
    hidden = secret.split("_")[2]
    with store._database.read(EVERY_TENANT) as connection:
        for table in ("tenants", "keys", "changes"):
            rows = str(connection.exec_driver_sql(f"SELECT * FROM {table}").all())
            assert hidden not in rows and (table != "keys" or key_digest(secret) in rows)
    assert hidden not in repr(store.find_key(made.public))


def test_a_key_is_found_with_what_lets_it_in(store: PromptStore) -> None:
    made, secret = create(store)
    create(store, "other")
    with statements(store) as sent:
        found = store.find_key(made.public)
    assert len(sent) == 1, "one query"
    assert found is not None and found.key == made
    assert (found.status, found.weight, found.tenant_limits) == (
        "active",
        3.0,
        TenantLimits(per_minute=Amounts(requests=7)),
    )
    assert matches(secret, found.digest) and not matches(make_key(), found.digest)
    store.suspend_tenant("acme")
    found = store.find_key(made.public)
    assert found is not None and found.status == "suspended"


@pytest.mark.parametrize("public", ["", "00000000", "0000000", "' OR 1=1", None, "0000000\n"])
def test_a_key_that_is_not_there_is_not_found(store: PromptStore, public: Any) -> None:
    create(store)
    with statements(store) as sent:
        assert store.find_key(public) is None
    assert len(sent) == (public == "00000000"), "what cannot be one is asked of nobody"


def test_a_public_part_is_given_once(store: PromptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = create(store)
    fresh = make_key()
    offered = iter([secret, secret, fresh])
    monkeypatch.setattr(keys_module, "make_key", lambda: next(offered))
    assert create(store)[1] == fresh


def test_two_live_keys_of_a_name_and_no_third(store: PromptStore, clock: FakeClock) -> None:
    first, _ = create(store)
    second, _ = create(store, expires_at=clock() + timedelta(seconds=60))
    create(store, name="another")
    create(store, "other")
    with pytest.raises(ConflictError, match="revoke one") as caught:
        create(store)
    assert (caught.value.code, caught.value.field) == ("too_many_keys", "name")
    store.revoke_key("acme", first.id)
    third, _ = create(store)
    with pytest.raises(ConflictError):
        create(store)
    clock.advance(60)  # the second expires
    assert not second.is_live(clock())
    create(store)
    assert store.get_key("acme", third.id).is_live(clock())


def test_a_key_lives_until_its_moment(store: PromptStore, clock: FakeClock) -> None:
    made, _ = create(store, expires_at=clock() + timedelta(seconds=60))
    assert made.is_live(clock() + timedelta(seconds=59))
    assert not made.is_live(clock() + timedelta(seconds=60))
    assert create(store, name="forever")[0].is_live(datetime.max.replace(tzinfo=UTC))


def test_a_revoked_key_stays_revoked(store: PromptStore, clock: FakeClock) -> None:
    made, _ = create(store)
    clock.advance(1)
    at = clock()
    for _ in range(2):
        assert store.revoke_key("acme", made.id).revoked_at == at
        clock.advance(1)
    found = store.find_key(made.public)
    assert found is not None and not found.key.is_live(clock())
    assert [change.kind for change in store.changes_after(2).items] == ["key_created", "key_revoked"]
    with pytest.raises(ConflictError) as caught:
        store.update_key("acme", made.id, scopes=["admin"])
    assert caught.value.code == "key_over"


def test_the_store_holds_keys_until_the_last_is_revoked_or_deleted(
    store: PromptStore, clock: FakeClock
) -> None:
    assert not store.holds_keys()
    made, _ = create(store, expires_at=clock() + timedelta(days=1))
    create(store, "other")
    clock.advance(2 * 86_400)
    store.delete_tenant("other", grace_seconds=0)
    assert store.holds_keys()  # an expired one counts
    store.revoke_key("acme", made.id)
    assert not store.holds_keys()


def test_an_update_changes_what_is_given(store: PromptStore, clock: FakeClock) -> None:
    made, _ = create(store, tasks=["a"])
    last = store.last_change()
    assert store.update_key("acme", made.id, scopes=["infer"], tasks=["a"]) == made
    assert store.last_change() == last
    moment = clock() + timedelta(hours=1)
    changed = store.update_key(
        "acme", made.id, scopes=["admin"], limits=KeyLimits(per_minute=Amounts(requests=1)), expires_at=moment
    )
    assert (changed.scopes, changed.tasks, changed.limits) == (
        ("admin",),
        ("a",),
        KeyLimits(per_minute=Amounts(requests=1)),
    )
    assert changed.expires_at == moment and store.get_key("acme", made.id) == changed
    assert store.update_key("acme", made.id, tasks=["*"]).tasks == ("*",)
    told = store.changes_after(last).items
    assert [(change.kind, change.tenant, change.subject) for change in told] == 2 * [
        ("key_updated", "acme", made.public)
    ]
    clock.advance(3600)
    with pytest.raises(ConflictError, match="expired"):
        store.update_key("acme", made.id, expires_at=clock() + timedelta(hours=1))


@pytest.mark.parametrize(
    ("values", "field", "code"),
    [
        ({"scopes": []}, "scopes", "invalid_scope"),
        ({"scopes": "infer"}, "scopes", "invalid_scope"),
        ({"scopes": ["infer", "root"]}, "scopes.1", "invalid_scope"),
        ({"scopes": [["infer"]]}, "scopes.0", "invalid_scope"),
        ({"tasks": []}, "tasks", "invalid_pattern"),
        ({"tasks": ["A"]}, "tasks.0", "invalid_pattern"),
        ({"expires_at": datetime(2025, 12, 31, tzinfo=UTC)}, "expires_at", "invalid_input"),
        ({"expires_at": datetime(2026, 1, 1, tzinfo=UTC)}, "expires_at", "invalid_input"),
        ({"expires_at": datetime(2027, 1, 1)}, "expires_at", "invalid_input"),
        ({"expires_at": 7}, "expires_at", "invalid_input"),
    ],
)
def test_what_no_key_can_be_is_refused(
    store: PromptStore, values: dict[str, Any], field: str, code: str
) -> None:
    made, _ = create(store)
    last = store.last_change()
    for change in (
        lambda: create(store, **values),
        lambda: store.update_key("acme", made.id, **values),
    ):
        with pytest.raises(InvalidError) as caught:
            change()
        assert (caught.value.field, caught.value.code) == (field, code)
    with pytest.raises(InvalidError):
        create(store, name="No Name")
    assert store.last_change() == last and store.list_keys("acme").items == (made,)


@pytest.mark.parametrize("key_id", ["key-" + "0" * 24, "key-1", "", "file-" + "0" * 24])
def test_absent_malformed_and_foreign_ids_answer_alike(store: PromptStore, key_id: str) -> None:
    theirs = create(store, "other")[0].id
    for ask in (store.get_key, store.revoke_key, store.update_key):
        told = []
        for wrong in (key_id, theirs):
            with pytest.raises(NotFoundError) as caught:
                ask("acme", wrong)
            told.append((caught.value.code, caught.value.field))
        assert told == 2 * [("unknown_key", "key")]
    assert store.get_key("other", theirs).revoked_at is None


def test_lists_are_newest_first_in_pages(store: PromptStore) -> None:
    made = [create(store, name=f"app-{i}")[0] for i in range(5)]
    theirs = create(store, "other")[0]
    made[3] = store.revoke_key("acme", made[3].id)
    page = store.list_keys("acme", limit=3)
    assert list(page.items) == made[:1:-1]
    assert list(store.list_keys("acme", limit=3, cursor=page.next_cursor).items) == made[1::-1]
    foreign = store.list_keys("other", limit=1)
    assert foreign.items == (theirs,) and foreign.next_cursor is None
    with pytest.raises(InvalidError):
        store.list_keys("other", cursor=page.next_cursor)


def test_last_use_is_noted_to_the_minute_and_never_goes_back(store: PromptStore) -> None:
    a, b = create(store)[0], create(store, "other")[0]
    minute = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)

    def used(key: Key) -> datetime | None:
        return store.get_key(key.tenant, key.id).last_used_at

    assert used(a) is None
    last = store.last_change()
    store.touch_keys({a.id: minute + timedelta(seconds=59.9), "key-" + "0" * 24: minute})
    assert (used(a), used(b)) == (minute, None)
    store.touch_keys({a.id: minute - timedelta(seconds=1), b.id: minute})
    assert (used(a), used(b)) == (minute, minute), "what came late changes nothing"
    elsewhere = timezone(timedelta(hours=5, minutes=30))
    store.touch_keys({a.id: (minute + timedelta(seconds=61)).astimezone(elsewhere)})
    assert used(a) == minute + timedelta(minutes=1)
    assert store.last_change() == last, "nobody has to look again"


def test_uses_of_many_keys_are_noted_in_few_transactions(store: PromptStore) -> None:
    made = [create(store, name=f"app-{i}")[0] for i in range(30)]
    minute = datetime(2026, 1, 2, tzinfo=UTC)
    committed: list[object] = []
    event.listen(store._database.engine, "commit", lambda connection: committed.append(connection))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys_module, "_TOUCHED_AT_ONCE", 10)
        store.touch_keys({key.id: minute for key in made})
        store.touch_keys({})
    assert len(committed) == 3
    assert {key.last_used_at for key in store.list_keys("acme").items} == {minute}


def test_the_first_key_with_a_scope_is_made_once(store: PromptStore, clock: FakeClock) -> None:
    """Over all tenants; keys that let nobody in do not count."""
    create(store, scopes=["infer", "admin"])

    def first(tenant: str) -> Key:
        return create(store, tenant, "first", scopes=["operator"], first_with="operator")[0]

    made = first("acme")
    for tenant in ("acme", "other", "absent"):
        with pytest.raises(ConflictError, match=made.id) as raised:
            first(tenant)
        assert raised.value.code == "key_exists"
    create(store, "other", scopes=["operator"], expires_at=clock() + timedelta(days=1))
    store.revoke_key("acme", made.id)
    with pytest.raises(ConflictError, match="tenant 'other'"):
        first("acme")
    clock.advance(86_400)
    first("acme")
    store.suspend_tenant("acme")
    first("other")


@pytest.mark.parametrize(("scope", "count"), [("operator", 1), (None, 8)], ids=["first", "control"])
def test_of_many_at_once_one_makes_the_first(store: PromptStore, scope: Any, count: int) -> None:
    together = threading.Barrier(8)

    def make(number: int) -> bool:
        together.wait()
        try:
            create(store, name=f"app-{number}", scopes=["operator"], first_with=scope)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, range(8))) == count
