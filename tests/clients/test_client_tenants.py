"""Tenants and keys in the Python client, against the real server."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from chorus import AsyncClient, Client, Key, NewKey, Tenant, errors
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.principal import Scope
from prompts_store.tenants.key_format import public_part
from tests.clients.fake_chorus import FakeChorus
from tests.clients.operated import Operated
from tests.server.api.api_harness import prompt


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[Operated]:
    """A server with an operator's key; tests use tenants of their own."""
    with Operated(tmp_path_factory.mktemp("data"), vocabulary) as server:
        yield server


@pytest.fixture
def operator(operated: Operated) -> Iterator[Client]:
    with Client(operated.url, operated.key) as client:
        yield client


def test_the_life_of_a_tenant(operator: Client) -> None:
    made = operator.tenants.create("life", display_name="Life Ltd", weight=2)
    assert (made.tenant, made.display_name, made.weight, made.status) == ("life", "Life Ltd", 2.0, "active")
    assert (made.created_by, made.suspended_at, made.purge_after) == ("operator", None, None)
    assert operator.tenants.get("life") == made
    changed = operator.tenants.update("life", weight=3.5)
    assert (changed.display_name, changed.weight) == ("Life Ltd", 3.5)
    assert operator.tenants.update("life", display_name="").display_name == ""
    suspended = operator.tenants.suspend("life")
    assert suspended.status == "suspended" and suspended.suspended_at is not None
    assert [tenant.tenant for tenant in operator.tenants.list(prefix="li", status="suspended")] == ["life"]
    assert operator.tenants.resume("life").status == "active"
    deleted = operator.tenants.delete("life")
    assert deleted.deleted_at is not None and deleted.purge_after is not None
    assert deleted.purge_after > deleted.deleted_at
    with pytest.raises(errors.NotFoundError) as raised:
        operator.tenants.get("life")
    assert raised.value.code == "unknown_tenant"
    assert "life" not in {tenant.tenant for tenant in operator.tenants.list()}
    with pytest.raises(errors.ConflictError) as taken:
        operator.tenants.create("life")
    assert taken.value.code == "tenant_exists"


LIMITS = {"per_minute": {"requests": 600}, "stored": {"prompts": 0}}


def test_limits_and_retention_are_given_replaced_and_removed(operated: Operated, operator: Client) -> None:
    made = operator.tenants.create("limited", limits=LIMITS, retention={"usage_days": 90})
    assert (made.limits, made.retention) == (LIMITS, {"usage_days": 90, "audit_days": None})
    assert operator.tenants.update("limited", weight=2).limits == LIMITS
    key = operator.keys.create(
        "app", scopes=["prompts:write"], limits={"per_minute": {"tokens": 5}}, tenant="limited"
    )
    assert key.limits == {"per_minute": {"tokens": 5}}
    assert operator.keys.update(key, limits={"queued": {"requests": 1}}).limits == {"queued": {"requests": 1}}

    async def use() -> None:
        async with AsyncClient(operated.url, key.key) as client:
            me = await client.me()
            assert me.limits.tenant == LIMITS and me.limits.left[-1].left == 0
            assert me.limits.key == {"queued": {"requests": 1}}
            with pytest.raises(errors.QuotaExceededError) as full:
                await client.tasks.push("sst2", prompt(3))
            assert full.value.code == "limit_exceeded"
            assert full.value.quota == {
                "of": "tenant", "limit": "stored.prompts", "window": None, "most": 0, "used": 0,
            }  # fmt: skip
        async with AsyncClient(operated.url, operated.key) as client:
            changed = await client.tenants.update("limited", limits={}, retention={})
            assert changed.limits == {} and set(changed.retention.values()) == {None}
            assert (await client.keys.update(key, limits={})).limits == {}

    asyncio.run(use())
    with pytest.raises(errors.InvalidInputError) as wrong:
        operator.tenants.update("limited", limits={"per_month": {"tokens": {"soft": 2, "hard": 1}}})
    assert wrong.value.field == "limits.per_month.tokens.soft" and wrong.value.quota is None


def test_lists_follow_every_page(operator: Client) -> None:
    for number in range(3):
        operator.tenants.create(f"page-{number}")
        operator.keys.create(f"key-{number}", scopes=["infer"], tenant="page-0")
    assert [tenant.tenant for tenant in operator.tenants.list(prefix="page-")] == [
        "page-0",
        "page-1",
        "page-2",
    ]
    assert [key.name for key in operator.keys.list(tenant="page-0")] == ["key-2", "key-1", "key-0"]
    first = operator.tenants.page(prefix="page-", limit=2)
    rest = operator.tenants.page(prefix="page-", limit=2, cursor=first.next_cursor)
    assert [len(first.tenants), len(rest.tenants), rest.next_cursor] == [2, 1, None]
    keys = operator.keys.page(tenant="page-0", limit=2)
    assert len(operator.keys.page(tenant="page-0", cursor=keys.next_cursor).keys) == 1


def test_a_key_lets_in_what_it_may_until_it_is_revoked(operated: Operated, operator: Client) -> None:
    operator.tenants.create("keyed")
    end = datetime.now(UTC) + timedelta(days=90)
    made = operator.keys.create(
        "website",
        tenant="keyed",
        scopes=["infer", "prompts:read", "prompts:write"],
        tasks=["news", "eu-*"],
        expires_at=end,
    )
    assert isinstance(made, NewKey) and public_part(made.key) == made.public
    assert (made.tenant, made.name, made.status, made.created_by) == ("keyed", "website", "live", "operator")
    assert (made.tasks, made.expires_at, made.revoked_at) == (["news", "eu-*"], end, None)
    found = operator.keys.get(made)
    assert type(found) is Key and found.model_dump() == made.model_dump(exclude={"key"})
    assert operator.keys.get(made.id, tenant="keyed") == found

    with Client(operated.url, made.key) as website:
        assert website.tasks.push("eu-film", prompt(2)).task == "keyed/eu-film"
        assert website.generate("eu-film", input="good", max_new_tokens=2).one.version == 1
        for refused in (lambda: website.keys.list(), lambda: website.tenants.list()):
            with pytest.raises(errors.ForbiddenError) as raised:
                refused()
            assert raised.value.code == "forbidden"
        operator.tenants.suspend("keyed")
        with pytest.raises(errors.ForbiddenError) as suspended:
            website.model()
        assert suspended.value.code == "tenant_suspended"
        operator.tenants.resume("keyed")
        assert website.model().name == "tiny"
        revoked = operator.keys.revoke(made)
        assert revoked.status == "revoked" and revoked.revoked_at is not None
        assert operator.keys.revoke(made.id, tenant="keyed") == revoked, "again changes nothing"
        with pytest.raises(errors.UnauthenticatedError):
            website.model()


def test_an_admin_keeps_to_its_tenant_and_to_its_scopes(operated: Operated, operator: Client) -> None:
    operator.tenants.create("admins")
    admin_key = operator.keys.create("admin", tenant="admins", scopes=["admin", "infer"])
    with Client(operated.url, admin_key.key) as admin:
        made = admin.keys.create("app", scopes=["infer"])
        assert made.tenant == "admins" and admin.keys.revoke(made).status == "revoked"
        assert [key.id for key in admin.keys.list()] == [made.id, admin_key.id]
        with pytest.raises(errors.ForbiddenError) as more:
            admin.keys.create("app", scopes=["infer", "operator"])
        assert more.value.field == "scopes.1"
        with pytest.raises(errors.NotFoundError) as elsewhere:
            admin.keys.list(tenant="default")
        assert elsewhere.value.code == "unknown_tenant"


def test_a_task_and_an_ensemble_are_shared_used_and_taken_back(operated: Operated, operator: Client) -> None:
    keys = {}
    for tenant in ("lender", "borrower"):
        operator.tenants.create(tenant)
        scopes = ["infer", "prompts:read", "prompts:write", "admin"]
        keys[tenant] = operator.keys.create("app", tenant=tenant, scopes=scopes).key
    with Client(operated.url, keys["lender"]) as lender, Client(operated.url, keys["borrower"]) as borrower:
        lender.tasks.push("mood", prompt(2))
        lender.ensembles.create("panel", ["mood"])
        made = lender.tasks.share("mood", "borrower", ["infer", "read"])
        assert (made.grantee, made.rights, made.created_by) == ("borrower", ["infer", "read"], "app")
        assert lender.tasks.grants("mood") == [made]
        assert lender.ensembles.share("panel", "*").rights == ["infer"]
        assert [grant.grantee for grant in lender.ensembles.grants("panel")] == ["*"]
        assert [(item.kind, item.reference) for item in borrower.shared()] == [
            ("task", "lender/mood"),
            ("ensemble", "lender/panel"),
        ]
        assert [item.reference for item in borrower.shared("ensemble")] == ["lender/panel"]
        assert borrower.generate("lender/mood", input="x", max_new_tokens=2).one.task == "lender/mood"
        assert borrower.tasks.get("lender/mood").latest == 1
        assert borrower.tasks.artifact("lender/mood") == lender.tasks.artifact("mood")
        assert borrower.ensemble("lender/panel", inputs=["x"]).results[0].members[0].task == "lender/mood"
        with pytest.raises(errors.NotFoundError):
            borrower.tasks.delete("lender/mood")
        lender.tasks.unshare("mood", "borrower")
        lender.ensembles.unshare("panel", "*")
        for ask in (
            lambda: borrower.generate("lender/mood", input="x"),
            lambda: borrower.tasks.get("lender/mood"),
        ):
            with pytest.raises(errors.NotFoundError) as gone:
                ask()
            assert gone.value.code == "unknown_task"
        with pytest.raises(errors.NotFoundError) as none:
            lender.tasks.unshare("mood", "borrower")
        assert none.value.code == "unknown_grant" and borrower.shared() == []

    async def awaited() -> None:
        async with (
            AsyncClient(operated.url, keys["lender"]) as lender,
            AsyncClient(operated.url, keys["borrower"]) as borrower,
        ):
            await lender.tasks.share("mood", "borrower")
            assert [item.reference for item in await borrower.shared()] == ["lender/mood"]
            await lender.tasks.unshare("mood", "borrower")
            assert await lender.tasks.grants("mood") == []

    asyncio.run(awaited())


def test_me(operated: Operated, operator: Client, api: Any) -> None:
    me = operator.me()
    assert me.key is not None and me.tenant.tenant == "default" and me.tenant.status == "active"
    assert (me.key.name, me.key.tasks, me.key.expires_at) == ("operator", None, None)
    assert me.key.public == public_part(operated.key) and set(me.scopes) == set(Scope)
    assert me.limits.max_batch_rows == 1024 and me.limits.max_deadline_seconds > 0
    operator.tenants.create("mine", display_name="Mine", weight=4)
    end = datetime.now(UTC) + timedelta(hours=1)
    made = operator.keys.create("reader", tenant="mine", scopes=["infer"], tasks=["a"], expires_at=end)
    with Client(operated.url, made.key) as client:
        mine = client.me()
    assert (mine.tenant.tenant, mine.tenant.display_name, mine.tenant.weight) == ("mine", "Mine", 4.0)
    assert mine.key is not None and (mine.key.id, mine.key.tasks) == (made.id, ["a"])
    assert mine.key.expires_at == end and mine.scopes == ["infer"]
    with Client(api.url) as anonymous:  # of a server without keys
        assert anonymous.me().key is None


def test_the_same_awaited(operated: Operated) -> None:
    async def go() -> None:
        async with AsyncClient(operated.url, operated.key) as operator:
            tenant = await operator.tenants.create("awaited")
            assert (await operator.tenants.update("awaited", weight=2)).weight == 2
            assert await operator.tenants.get("awaited") != tenant
            assert [each.tenant for each in await operator.tenants.list(prefix="await")] == ["awaited"]
            made = await operator.keys.create("app", tenant="awaited", scopes=["infer"])
            assert await operator.keys.get(made) in await operator.keys.list(tenant="awaited")
            async with AsyncClient(operated.url, made.key) as app:
                assert (await app.me()).tenant.tenant == "awaited"
                await operator.tenants.suspend("awaited")
                with pytest.raises(errors.ForbiddenError):
                    await app.me()
                await operator.tenants.resume("awaited")
                await operator.keys.revoke(made)
                with pytest.raises(errors.UnauthenticatedError):
                    await app.me()
            assert (await operator.tenants.delete("awaited")).status == "deleted"

    asyncio.run(go())


@pytest.mark.parametrize(
    ("call", "kind", "code", "field"),
    [
        (lambda c: c.tenants.get("absent"), errors.NotFoundError, "unknown_tenant", "tenant"),
        (lambda c: c.tenants.create("default"), errors.ConflictError, "tenant_exists", "tenant"),
        (lambda c: c.tenants.create("Not A Name"), errors.InvalidInputError, None, None),
        (lambda c: c.tenants.create("x", weight=-1), errors.InvalidInputError, None, "weight"),
        (lambda c: c.tenants.delete("default"), errors.ConflictError, "conflict", "tenant"),
        (lambda c: c.keys.create("a", scopes=["fly"]), errors.InvalidInputError, None, "scopes.0"),
        (lambda c: c.keys.create("a", scopes=[]), errors.InvalidInputError, None, "scopes"),
        (lambda c: c.keys.create("a", scopes=["infer"], tasks=["A B"]), errors.InvalidInputError,
         "invalid_pattern", "tasks.0"),
        (lambda c: c.keys.create("a", scopes=["infer"], expires_at=datetime(2020, 1, 1, tzinfo=UTC)),
         errors.InvalidInputError, None, "expires_at"),
        (lambda c: c.keys.create("a", scopes=["infer"], tenant="absent"), errors.NotFoundError,
         "unknown_tenant", "tenant"),
        (lambda c: c.keys.get("key-" + 24 * "0"), errors.NotFoundError, "unknown_key", "key"),
        (lambda c: c.keys.revoke("key-" + 24 * "0"), errors.NotFoundError, "unknown_key", "key"),
        (lambda c: [c.keys.create("thrice", scopes=["infer"]) for _ in range(3)], errors.ConflictError,
         "too_many_keys", "name"),
    ],
)  # fmt: skip
def test_refusals_are_typed_and_name_the_field(
    operator: Client, call: Any, kind: type[errors.ApiError], code: str | None, field: str | None
) -> None:
    with pytest.raises(kind) as raised:
        call(operator)
    assert code is None or raised.value.code == code
    assert field is None or raised.value.field == field
    assert raised.value.status is not None and errors.error_class(raised.value.code) in (
        kind,
        errors.ApiError,
    )


SECRET = "ck_aaaaaaaa_0123456789abcdefghijABCDEFGHIJxy_000000"


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda c: c.keys.get(SECRET), "key"),
        (lambda c: c.keys.revoke(SECRET), "key"),
        (lambda c: c.keys.revoke("../tenants"), "key"),
        (lambda c: c.keys.revoke(""), "key"),
        (lambda c: c.tenants.delete("a/b"), "tenant"),
        (lambda c: c.keys.create("a", scopes="infer"), "scopes"),
        (lambda c: c.keys.create("a", scopes=["infer"], tasks="sst2"), "tasks"),
        (lambda c: c.keys.create("a", scopes=["infer"], expires_at=datetime(2099, 1, 1)), "expires_at"),
        (lambda c: c.keys.create("a", scopes=["infer"], expires_at="2099-01-01"), "expires_at"),
    ],
)
def test_bad_arguments_are_refused_before_sending(
    client: Client, fake: FakeChorus, call: Any, field: str
) -> None:
    with pytest.raises(errors.InvalidArgumentError) as raised:
        call(client)
    assert raised.value.field == field and fake.seen == []
    assert SECRET not in str(raised.value)


def test_a_new_key_is_in_one_field_and_in_no_text_of_the_answer() -> None:
    made = NewKey(
        id="key-1", tenant="t", public="aaaaaaaa", name="n", scopes=["infer"], status="live",
        created_at=datetime.now(UTC), key=SECRET,
    )  # fmt: skip
    assert SECRET not in repr(made) and SECRET not in str(made)
    assert [name for name, value in made if value == SECRET] == ["key"]


@pytest.mark.parametrize(("kind", "shown"), [(NewKey, False), (Tenant, True)])
def test_an_answer_that_cannot_be_read_does_not_show_the_key(kind: type, shown: bool) -> None:
    """The second one is the control: another answer's values are in the traceback."""
    answer = httpx2.MockTransport(lambda request: httpx2.Response(201, content=json.dumps({"key": SECRET})))
    with Client(transport=answer) as client, pytest.raises(errors.UnexpectedAnswerError) as raised:
        client.keys.create("a", scopes=["infer"]) if kind is NewKey else client.tenants.create("a")
    told = "".join(traceback.format_exception(raised.value))
    assert ("ck_aaaaaaaa" in told) is shown
