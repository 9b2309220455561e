"""What one tenant grants another: in every state of the grant, each use works or answers as if nothing were
there. The server, the keys and what is shared are those of the matrix.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tuning.document.recipe import Recipe
from tests.server.api.api_harness import ApiServer, Gate, artifact, error_of, eventually, gated_server, send
from tests.server.api.test_tenant_matrix import CANARY, RAW, World, job, make_keys, sent, stock, told

TASK, OF_OTHERS = "/v1/tasks/{task}", "?tenant={tenant}"
LABELS = ["good", "bad"]
GRANTS, PANEL = "/v1/tasks/secret/grants", "/v1/ensembles/panel"


@dataclass(frozen=True)
class Use:
    """One way to use a task of another tenant: the right that it takes, and the request."""

    right: str
    method: str
    url: str
    body: Callable[[str], Any] | None = None

    def of(self, world: World, tenant: str, task: str, key: str = "good") -> httpx2.Response:
        content = {} if self.body is None else sent(self.body(f"{tenant}/{task}"))(world.theirs)
        url = self.url.format(tenant=tenant, task=task)
        return world.send(self.method, url, world.keys[key], **content)


USES = {
    "generate": Use("infer", "POST", "/v1/generate", lambda name: {"task": name, "input": "x"}),
    "by version": Use("infer", "POST", "/v1/generate", lambda name: {"task": f"{name}@1", "input": "x"}),
    "by alias": Use("infer", "POST", "/v1/generate", lambda name: {"task": f"{name}@hidden", "input": "x"}),
    "stream": Use("infer", "POST", "/v1/generate", lambda name: {"task": name, "input": "x", "stream": True}),
    "mixed": Use(
        "infer",
        "POST",
        "/v1/generate",
        lambda name: {"requests": [{"task": task, "input": "x"} for task in ("own", name)]},
    ),
    "classify": Use(
        "infer", "POST", "/v1/classify", lambda name: {"task": name, "input": "x", "labels": LABELS}
    ),
    "vote": Use(
        "infer",
        "POST",
        "/v1/ensemble",
        lambda name: {"tasks": ["own", name], "input": "x", "labels": LABELS},
    ),
    "store an ensemble": Use(
        "infer", "POST", "/v1/ensembles/borrowed/versions", lambda name: {"tasks": [name]}
    ),
    "train on": Use("read", "POST", "/v1/tuning/jobs", lambda name: job(initial_prompt=name)),
    "show": Use("read", "GET", TASK + OF_OTHERS),
    "list versions": Use("read", "GET", f"{TASK}/versions{OF_OTHERS}"),
    "show a version": Use("read", "GET", f"{TASK}/versions/1{OF_OTHERS}"),
    "download": Use("read", "GET", f"{TASK}/versions/1/artifact{OF_OTHERS}"),
    "interpret": Use("read", "GET", f"{TASK}/versions/1/neighbors{OF_OTHERS}"),
    "aliases": Use("read", "GET", f"{TASK}/aliases{OF_OTHERS}"),
}

BOTH = ("infer", "read")


def grant(world: World, grantee: str = "ours", rights: tuple[str, ...] = BOTH, url: str = GRANTS) -> None:
    answer = world.send("PUT", f"{url}/{grantee}", world.keys["theirs"], json={"rights": list(rights)})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["grantee"], answer.json()["rights"]) == (grantee, list(rights))


def revoke(world: World, grantee: str = "ours", url: str = GRANTS) -> httpx2.Response:
    return world.send("DELETE", f"{url}/{grantee}", world.keys["theirs"])


def operate(world: World, step: str) -> None:
    answer = world.send("POST", f"/v1/tenants/theirs/{step}", world.keys["operator"])
    assert answer.status_code == 200, answer.text


def narrowed(world: World) -> None:
    grant(world)
    grant(world, rights=("read",))


def revoked(world: World) -> None:
    grant(world)
    assert USES["generate"].of(world, "theirs", "secret").status_code == 200  # so it is remembered
    assert revoke(world).status_code == 204


def suspended(world: World) -> None:
    grant(world)
    assert USES["generate"].of(world, "theirs", "secret").status_code == 200
    operate(world, "suspend")


STATES: dict[str, tuple[Callable[[World], None], tuple[str, ...]]] = {
    "without": (lambda world: None, ()),
    "both rights": (grant, BOTH),
    "to ask": (lambda world: grant(world, rights=("infer",)), ("infer",)),
    "to read": (lambda world: grant(world, rights=("read",)), ("read",)),
    "to all": (lambda world: grant(world, "*"), BOTH),
    "to all and to one": (
        lambda world: (grant(world, "*", ("read",)), grant(world, rights=("infer",)))[0], BOTH,
    ),
    "to somebody else": (lambda world: grant(world, "strangers"), ()),
    "narrowed": (narrowed, ("read",)),
    "revoked": (revoked, ()),
    "of the ensemble only": (lambda world: grant(world, url=f"{PANEL}/grants"), ()),
    "owner suspended": (suspended, ()),
}  # fmt: skip


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[World]:
    with ApiServer(tmp_path_factory.mktemp("sharing"), vocabulary) as api:
        found = World(api, make_keys(api.store), {"tenant": "theirs"})
        stock(found)
        api.store.create_tenant("third")
        _, found.keys["third"] = api.store.create_key("third", "k", scopes=["infer", "prompts:read"])
        yield found


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """Nothing is shared with ours at first, and nothing is left behind."""
    yield shared_world
    operate(shared_world, "resume")
    for url in (GRANTS, f"{PANEL}/grants"):
        for grantee in ("ours", "*", "strangers"):
            revoke(shared_world, grantee, url)


@pytest.mark.parametrize("state", STATES)
def test_each_use_works_with_its_right_and_else_as_if_nothing_were_there(world: World, state: str) -> None:
    prepare, rights = STATES[state]
    prepare(world)
    for name, use in USES.items():
        answer = use.of(world, "theirs", "secret")
        if use.right in rights:
            assert answer.status_code in (200, 201), (name, answer.text)
            if name == "train on":
                world.send("POST", f"/v1/tuning/jobs/{answer.json()['id']}/cancel", world.keys["good"])
            continue
        assert CANARY not in answer.text
        absent = [
            told(use.of(world, tenant, "missing"), {"tenant": tenant, "task": "missing"})
            for tenant in ("theirs", "nobody")
        ]
        refusals = {told(answer, {"tenant": "theirs", "task": "secret"}), *absent}
        assert len(refusals) == 1 and answer.status_code == 404, (name, refusals)


CHANGES: dict[str, tuple[str, str, Mapping[str, Any]]] = {
    "delete": ("DELETE", TASK, {}),
    "upload": ("POST", f"{TASK}/versions", {"content": artifact(), "headers": RAW}),
    "delete a version": ("DELETE", f"{TASK}/versions/2", {}),
    "move an alias": ("PUT", f"{TASK}/aliases/live", {"json": {"version": 2}}),
    "remove an alias": ("DELETE", f"{TASK}/aliases/hidden", {}),
    "roll back": ("POST", f"{TASK}/rollback", {"json": {"alias": "live"}}),
    "see its grants": ("GET", f"{TASK}/grants", {}),
    "share it further": ("PUT", f"{TASK}/grants/strangers", {"json": {"rights": ["infer"]}}),
    "revoke": ("DELETE", f"{TASK}/grants/ours", {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_changed_by_those_it_is_shared_with(world: World, change: str) -> None:
    method, url, content = CHANGES[change]
    grant(world)
    before = world.send("GET", "/v1/tasks/secret", world.keys["theirs"]).json()
    answers = set()
    for task in ("secret", "missing"):
        path = (url + OF_OTHERS).format(tenant="theirs", task=task)
        answers.add(told(world.send(method, path, world.keys["good"], **content), {"task": task}))
    assert len(answers) == 1 and next(iter(answers))[0] == 404, answers
    assert world.send("GET", "/v1/tasks/secret", world.keys["theirs"]).json() == before


def vote(world: World, ensemble: str, key: str = "good") -> httpx2.Response:
    return world.send(
        "POST", "/v1/ensemble", world.keys[key], json={"ensemble": ensemble, "input": "x", "labels": LABELS}
    )


def test_a_shared_ensemble_runs_its_members_without_further_grants(world: World) -> None:
    absent = told(vote(world, "theirs/missing"), {"ensemble": "missing"})
    shown = f"{PANEL}?tenant=theirs"
    assert told(vote(world, "theirs/panel"), {"ensemble": "panel"}) == absent
    grant(world, rights=("infer",), url=f"{PANEL}/grants")
    answer = vote(world, "theirs/panel@live")
    assert answer.status_code == 200, answer.text
    assert [member["task"] for member in answer.json()["results"][0]["members"]] == ["theirs/secret"]
    assert USES["generate"].of(world, "theirs", "secret").status_code == 404  # not by itself
    assert world.send("GET", shown, world.keys["good"]).status_code == 404  # asking is not reading
    grant(world, rights=("read",), url=f"{PANEL}/grants")
    assert world.send("GET", shown, world.keys["good"]).json()["members"][0]["task"] == "theirs/secret"
    assert told(vote(world, "theirs/panel"), {"ensemble": "panel"}) == absent
    revoke(world, url=f"{PANEL}/grants")
    assert world.send("GET", shown, world.keys["good"]).status_code == 404


def test_a_shared_member_is_asked_as_long_as_its_grant_stands(world: World) -> None:
    grant(world, rights=("infer",))
    made = world.send("POST", "/v1/ensembles/mix/versions", world.keys["good"],
                      json={"tasks": ["own", "theirs/secret"]})  # fmt: skip
    assert made.status_code == 201, made.text
    assert vote(world, "mix").status_code == 200
    revoke(world)
    refused = error_of(vote(world, "mix"))
    assert (refused["code"], refused["field"]) == ("unknown_task", "ensemble")
    grant(world, "*", ("infer",))
    assert vote(world, "mix").status_code == 200
    # Whoever may ask our ensemble asks its members through us.
    assert world.send("PUT", "/v1/ensembles/mix/grants/*", world.keys["good"],
                      json={"rights": ["infer"]}).status_code == 200  # fmt: skip
    assert vote(world, "ours/mix", "third").status_code == 200
    revoke(world, "*")
    assert error_of(vote(world, "ours/mix", "third"))["code"] == "unknown_task"
    assert world.send("DELETE", "/v1/ensembles/mix", world.keys["good"]).status_code == 204
    assert error_of(vote(world, "ours/mix", "third"))["code"] == "unknown_ensemble"


def test_an_owner_deletes_what_another_tenants_ensemble_asks(world: World) -> None:
    theirs, good = world.keys["theirs"], world.keys["good"]
    world.send("POST", "/v1/tasks/lent/versions", theirs, content=artifact(3, 9), headers=RAW)
    grant(world, "*", url="/v1/tasks/lent/grants")
    assert world.send("POST", "/v1/ensembles/lent/versions", good,
                      json={"tasks": ["theirs/lent"]}).status_code == 201  # fmt: skip
    assert world.send("DELETE", "/v1/tasks/lent", theirs).status_code == 204
    assert error_of(vote(world, "lent"))["code"] == "unknown_task"
    assert world.send("GET", "/v1/ensembles/lent", good).json()["members"][0]["task"] == "theirs/lent"
    world.send("POST", "/v1/tasks/lent/versions", theirs, content=artifact(3, 9), headers=RAW)
    assert world.send("GET", "/v1/tasks/lent/grants", theirs).json() == {"grants": []}


@pytest.mark.parametrize("began", ["theirs/hidden-start@1", "hidden-start@1"])
def test_how_far_a_shared_prompt_moved_is_told_to_those_who_may_read_what_it_began_with(
    world: World, began: str
) -> None:
    """Distances and cosines to a prompt that is not shared would tell of its values."""
    theirs, good, store = world.keys["theirs"], world.keys["good"], world.api.store
    world.send("POST", "/v1/tasks/hidden-start/versions", theirs, content=artifact(3, 5), headers=RAW)
    world.send("POST", "/v1/tasks/hidden-start/versions", good, content=artifact(3, 6), headers=RAW)
    recipe = Recipe(prompt_length=3, initialiser="existing_prompt").to_json()
    lineage = {"source": "tuning", "seed": 1, "index": 0, "recipe": recipe, "initial_prompt": began}
    query = {"lineage": json.dumps(lineage), "template": began + " {text}"}
    made = world.send(
        "POST", "/v1/tasks/moved-on/versions", theirs, content=artifact(3, 7), headers=RAW, params=query
    )
    path = f"/v1/tasks/moved-on/versions/{made.json()['version']}/neighbors?tenant=theirs"

    def moved(key: str) -> list[Any]:
        answer = world.send("GET", path, world.keys[key])
        assert answer.status_code == 200, answer.text
        return [row["moved"] for row in answer.json()["rows"]]

    grant(world, rights=("read",), url="/v1/tasks/moved-on/grants")
    known = moved("theirs")
    assert None not in known
    assert moved("good") == [None] * 3
    scopes, only = ["prompts:read"], ["theirs/moved-on", "hidden-start"]
    grant(world, rights=("read",), url="/v1/tasks/hidden-start/grants")
    assert moved("good") == known
    key, world.keys["some"] = store.create_key("ours", "some", scopes=scopes, tasks=only)
    assert moved("some") == [None] * 3  # of that name it may see only its own tenant's
    store.revoke_key("ours", key.id)
    for url in ("/v1/tasks/moved-on/grants", "/v1/tasks/hidden-start/grants"):
        revoke(world, url=url)


PATTERNS: list[tuple[list[str], bool]] = [
    (["*"], False),
    (["secret"], False),
    (["theirs/secret"], True),
    (["theirs/*"], True),
    (["*/secret"], True),
    (["ours/*", "strangers/*"], False),
    (["theirs/other"], False),
]


@pytest.mark.parametrize(("patterns", "fits"), PATTERNS)
def test_patterns_of_a_key_name_what_is_shared_with_its_owner(
    world: World, patterns: list[str], fits: bool
) -> None:
    grant(world)
    scopes = ["infer", "prompts:read", "prompts:write", "tune"]
    key, world.keys["some"] = world.api.store.create_key("ours", "some", scopes=scopes, tasks=patterns)
    for use in (USES["generate"], USES["classify"], USES["show"], USES["download"]):
        assert use.of(world, "theirs", "secret", "some").status_code == (200 if fits else 404)
    listed = world.send("GET", "/v1/shared", world.keys["some"]).json()["shared"]
    assert [item["reference"] for item in listed] == (["theirs/secret"] if fits else [])
    world.api.store.revoke_key("ours", key.id)


def test_what_is_shared_is_listed_with_its_owner_and_no_more(world: World) -> None:
    def listed(key: str = "good", query: str = "") -> list[dict[str, Any]]:
        answer = world.send("GET", f"/v1/shared{query}", world.keys[key])
        assert answer.status_code == 200, answer.text
        shared: list[dict[str, Any]] = answer.json()["shared"]
        return shared

    assert listed() == []
    grant(world, rights=("infer",))
    grant(world, "*", ("read",))
    grant(world, url=f"{PANEL}/grants", rights=("infer",))
    task = {"kind": "task", "reference": "theirs/secret", "rights": list(BOTH)}
    panel = {"kind": "ensemble", "reference": "theirs/panel", "rights": ["infer"]}
    assert listed() == [panel, task]
    assert listed(query="?kind=task") == [task] and listed(query="?kind=ensemble") == [panel]
    first = world.send("GET", "/v1/shared?limit=1", world.keys["good"]).json()
    rest = world.send("GET", f"/v1/shared?limit=1&cursor={first['next_cursor']}", world.keys["good"]).json()
    assert (first["shared"], rest) == ([panel], {"shared": [task], "next_cursor": None})
    assert listed("theirs") == [], "one's own is not shared with one"
    assert listed("third") == [{**task, "rights": ["read"]}]
    operate(world, "suspend")
    assert listed() == []


def test_both_logs_tell_it_and_the_grantees_tells_nothing_of_the_owners_keys(world: World) -> None:
    def rows(key: str, subject: str) -> list[dict[str, Any]]:
        answer = world.send("GET", f"/v1/audit?subject={subject}&limit=500", world.keys[key])
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["rows"]
        return [row for row in found if row["action"].endswith("share")]

    before = len(rows("theirs", "secret")), len(rows("good", "theirs/secret"))
    grant(world, rights=("infer",))
    grant(world, rights=("read",))
    grant(world, rights=("read",))  # changes nothing
    revoke(world)
    grant(world, "*")
    facts = [{"grantee": "ours", "rights": [right]} for right in BOTH]
    changes = [
        ("task.share", None, facts[0]), ("task.share", facts[0], facts[1]), ("task.unshare", facts[1], None),
    ]  # fmt: skip
    ours, theirs = rows("good", "theirs/secret")[before[1] :], rows("theirs", "secret")[before[0] :]
    assert [(row["action"], row["before"], row["after"]) for row in ours] == changes
    assert [(row["action"], row["before"], row["after"]) for row in theirs[:3]] == changes
    assert theirs[3]["after"] == {"grantee": "*", "rights": list(BOTH)} and len(theirs) == 4
    assert {(row["actor"], row["address"], row["request_id"]) for row in ours} == {("tenant theirs", "", "")}
    assert all(row["actor"].startswith("key-") and row["address"] for row in theirs)


def test_a_grant_does_not_tell_which_tenants_there_are(world: World) -> None:
    answers = []
    for grantee in ("ours", "strangers", "deleted"):
        for method, content in (("PUT", {"json": {"rights": ["infer"]}}), ("DELETE", {}), ("DELETE", {})):
            answer = world.send(method, f"{GRANTS}/{grantee}", world.keys["theirs"], **content)
            body = answer.json() if answer.content else {}
            body.pop("created_at", None)
            body.get("error", {}).pop("request_id", None)
            answers.append((answer.status_code, str(body).replace(grantee, "NAME")))
    assert answers[:3] == answers[3:6] == answers[6:]
    assert [status for status, _ in answers[:3]] == [200, 204, 404]


@pytest.mark.parametrize(
    ("grantee", "body", "status", "code", "field"),
    [
        ("ours", {}, 400, "invalid_input", "rights"),
        ("ours", {"rights": []}, 400, "invalid_input", "rights"),
        ("ours", {"rights": ["write"]}, 400, "invalid_input", "rights.0"),
        ("ours", {"rights": ["infer"], "until": 1}, 400, "unknown_field", "until"),
        ("theirs", {"rights": ["infer"]}, 400, "invalid_input", "grantee"),
        ("Ours", {"rights": ["infer"]}, 400, "invalid_name", "grantee"),
        ("**", {"rights": ["infer"]}, 400, "invalid_name", "grantee"),
    ],
)
def test_a_grant_that_cannot_be_is_refused(
    world: World, grantee: str, body: Any, status: int, code: str, field: str
) -> None:
    answer = world.send("PUT", f"{GRANTS}/{grantee}", world.keys["theirs"], json=body)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["field"]) == (status, code, field), error


def test_a_key_grants_no_right_that_it_lacks(world: World) -> None:
    _, secret = world.api.store.create_key("theirs", "asks", scopes=["admin", "infer"])
    url = f"{GRANTS}/ours"
    assert world.send("PUT", url, secret, json={"rights": ["infer"]}).status_code == 200
    refused = world.send("PUT", url, secret, json={"rights": ["infer", "read"]})
    assert refused.status_code == 403 and error_of(refused)["field"] == "rights.1"


def test_who_asks_pays(world: World) -> None:
    def used(key: str) -> dict[str, int]:
        world.api.services.usage.save()
        world.api.services.usage.send()
        query = "from=2020-01-01&to=2090-01-01&group_by=task"
        sums = world.send("GET", f"/v1/usage?{query}", world.keys[key]).json()["usage"]
        return {each["task"]: each["items"] for each in sums}

    grant(world)
    before = used("good"), used("theirs")
    assert USES["mixed"].of(world, "theirs", "secret").status_code == 200
    ours, theirs = used("good"), used("theirs")
    assert ours["theirs/secret"] == before[0].get("theirs/secret", 0) + 1
    assert ours["ours/own"] == before[0].get("ours/own", 0) + 1
    assert theirs == before[1]


@pytest.mark.parametrize("end", ["revoke", "delete"])
def test_what_runs_is_answered_and_the_next_is_not(
    tmp_path: Path, vocabulary: Vocabulary, gate: Gate, end: str
) -> None:
    with gated_server(tmp_path / "data", vocabulary, gate) as api:
        world = World(api, make_keys(api.store), {"tenant": "theirs"})
        stock(world)
        for seed in (7, 8):
            world.send("POST", "/v1/tasks/lent/versions", world.keys["theirs"],
                       content=artifact(3, seed), headers=RAW)  # fmt: skip
        grant(world, url="/v1/tasks/lent/grants")
        gate.close()
        body = {"task": "theirs/lent@2", "input": "x", "max_new_tokens": 2}
        with send(api, "/v1/generate", body, {"Authorization": f"Bearer {world.keys['good']}"}) as running:
            assert gate.waiting.wait(300)
            url = "/v1/tasks/lent" + ("/grants/ours" if end == "revoke" else "")
            assert world.send("DELETE", url, world.keys["theirs"]).status_code == 204
            assert api.store._leases.held() == 1
            assert USES["generate"].of(world, "theirs", "lent").status_code == 404
            report = api.store.collect(grace_seconds=0)
            assert report.blobs == (1 if end == "delete" else 0)  # of the other version, which nobody reads
            gate.open.set()
            running.settimeout(300)
            assert b"200 OK" in running.recv(65536)
        eventually(lambda: api.store._leases.held() == 0)
        assert USES["generate"].of(world, "theirs", "lent").status_code == 404
