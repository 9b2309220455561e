"""What a process does now: all of it for operators, a tenant's own for its keys, the rest added up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jax
import pytest
from sqlalchemy import update

from chorus_server.api.schemas.operations import OperationsAnswer, StoreCheckAnswer
from chorus_server.api.services import Compiled, DeviceStart
from chorus_server.api.upkeep import Collection
from chorus_server.engine.executor import CompileWatch
from chorus_server.engine.memory_plan import MemoryPlan
from chorus_server.jobs.endings import AttemptEnding
from chorus_server.jobs.leased import LeasedJob
from chorus_server.jobs.runner import JobRunner, RunnerConfig, this_process
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tables import blobs
from prompts_store.errors import StoreError
from prompts_store.tenants.records import Scope
from tests.server.api.api_harness import (
    FINGERPRINT,
    ApiServer,
    Gate,
    artifact,
    error_of,
    eventually,
    gated_server,
)

OPERATOR = "an-operator-of-tests-0123456789"
SCOPES: list[Scope] = ["infer", "prompts:read", "prompts:write", "tune", "metrics:read"]
RAW = {"content-type": "application/octet-stream"}


def asked(api: ApiServer, key: str, **query: Any) -> dict[str, Any]:
    """The answer, which is as it is documented."""
    answer = api.http.get("/v1/operations", params=query, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    OperationsAnswer.model_validate(answer.json(), strict=False)
    found: dict[str, Any] = answer.json()
    return found


def key_of(api: ApiServer, tenant: str, *scopes: Scope, **given: Any) -> str:
    api.store.ensure_tenant(tenant)
    return api.store.create_key(tenant, "of-tests", scopes=scopes or SCOPES, **given)[1]


@pytest.fixture
def api(tmp_path: Path, vocabulary: Vocabulary, gate: Gate) -> Iterator[ApiServer]:
    ring = KeyRing({OPERATOR: Principal("default", "operator")}, Principal("default", "anonymous"))
    with gated_server(tmp_path, vocabulary, gate, keys=ring) as server:
        yield server


def test_operators_see_everybody_and_tenants_themselves(api: ApiServer, gate: Gate) -> None:
    keys = {tenant: key_of(api, tenant) for tenant in ("acme", "zeta")}
    narrow = key_of(api, "acme", "metrics:read", tasks=["other*"])
    heads = {tenant: {"authorization": f"Bearer {key}"} for tenant, key in keys.items()}
    for tenant, head in heads.items():
        for seed in range(2):
            answer = api.http.post(
                f"/v1/tasks/{tenant}-{seed}/versions", content=artifact(3, seed), headers=RAW | head
            )
            assert answer.status_code == 201, answer.text
    gate.close()
    with ThreadPoolExecutor(2) as pool:
        answers = []
        for tenant, count in (("acme", 3), ("zeta", 9)):
            requests = [{"task": f"{tenant}-{n % 2}", "input": "good"} for n in range(count)]
            body = {"requests": requests, "max_new_tokens": 4}
            answers.append(pool.submit(api.http.post, "/v1/generate", json=body, headers=heads[tenant]))
            assert gate.waiting.wait(300)
            eventually(lambda most=count: api.engine.stats().permits >= most)
        eventually(lambda: api.engine.stats().permits == 12)
        all_of_it, ours, less = asked(api, OPERATOR), asked(api, keys["acme"]), asked(api, narrow)
        gate.open.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]

    on_device = {each["task"]: each["requests"] for each in all_of_it["batch"]["tasks"]}
    held = sum(on_device.values())
    queue = {each["tenant"]: each for each in all_of_it["queue"]["tenants"]}
    assert held + sum(each["requests"] for each in queue.values()) == 12
    assert (all_of_it["batch"]["others"], all_of_it["queue"]["others"]["tenants"]) == (
        {"tasks": 0, "requests": 0},
        0,
    )
    assert queue["zeta"]["work_units"] >= 9 * queue["zeta"]["requests"] > 0
    assert {name.partition("/")[0] for name in all_of_it["prompts"]["waiting"]} == set(queue)
    assert all_of_it["process"] == this_process() and all_of_it["lease_holders"] == []

    assert [each["tenant"] for each in ours["queue"]["tenants"]] in ([], ["acme"])
    others = ours["queue"]["others"]
    assert others["requests"] + sum(each["requests"] for each in ours["queue"]["tenants"]) + held == 12
    assert others["work_units"] >= queue["zeta"]["work_units"] and others["tenants"] >= 1
    told = sum(each["requests"] for each in ours["batch"]["tasks"])
    assert told + ours["batch"]["others"]["requests"] == held
    assert (ours["process"], ours["lease_holders"]) == (None, None)
    assert "acme/" in str(ours["prompts"]) + str(ours["batch"]) and "zeta" not in str(ours)
    assert less["batch"]["tasks"] == [] and "acme/" not in str(less) and "zeta" not in str(less)

    assert api.engine.wait_idle(300)
    after = asked(api, OPERATOR)
    assert (after["batch"]["tasks"], after["queue"]["tenants"]) == ([], [])
    last = after["batch"]["last_prefill"]
    assert last["kind"] == "generate" and 1 <= last["tasks"] <= last["requests"]
    assert last["padding"] == pytest.approx(1 - last["tokens"] / last["padded_tokens"])
    assert after["slots"]["total"] > 0 == after["slots"]["in_use"]


def test_the_hour_is_what_was_asked(api: ApiServer) -> None:
    key = key_of(api, "acme")
    headers = {"authorization": f"Bearer {key}"}
    body = {"task": None, "inputs": ["good", "bad"], "max_new_tokens": 2}
    assert (
        api.http.post("/v1/generate", json=body, headers={"authorization": f"Bearer {key}"}).status_code
        == 200
    )
    assert asked(api, key)["hour"] == []
    api.services.hour.tick()
    (tick,) = asked(api, key, minutes=1)["hour"]
    assert (tick["answered"], tick["failed"], tick["refused"]) == (2, 0, 0)
    assert tick["tokens_in"] > 0 and 0 < tick["median_seconds"] <= tick["p99_seconds"]
    assert asked(api, key, minutes=0)["hour"] == []
    for minutes in (-1, 61, "x"):
        answer = api.http.get("/v1/operations", params={"minutes": minutes}, headers=headers)
        assert (answer.status_code, error_of(answer)["field"]) == (400, "minutes")


class Waiting(JobRunner):
    """Takes jobs, and is not done with them until it is stopped."""

    over = threading.Event()

    def attempt(self, held: LeasedJob) -> AttemptEnding:
        assert self.over.wait(300)
        held.release()
        return "released"


def test_jobs_and_leases_are_told_to_those_who_may_know(api: ApiServer, tmp_path: Path) -> None:
    key, zeta = key_of(api, "acme"), key_of(api, "zeta")
    narrow = key_of(api, "acme", "metrics:read", tasks=["other*"])
    made = {
        tenant: api.store.create_job(
            tenant, "tuning", {"base_fingerprint": FINGERPRINT, "prompts": [{"task": "new"}]}
        ).id
        for tenant in ("acme", "zeta")
    }
    config = RunnerConfig(folder=tmp_path / "jobs", owner=this_process(), at_once=2)
    runner = Waiting(api.store, "tuning", FINGERPRINT, "float32", config)
    api.services.engine_jobs = (runner,)
    runner.start()
    try:
        eventually(lambda: len(runner.jobs) == 2)
        for who, seen, others in (
            (OPERATOR, ["acme", "zeta"], 0), (key, ["acme"], 1), (zeta, ["zeta"], 1), (narrow, [], 2)
        ):  # fmt: skip
            found = asked(api, who)["jobs"]
            jobs = {job["tenant"]: job["id"] for job in found["running"]}
            assert (jobs, found["others"]) == ({tenant: made[tenant] for tenant in seen}, others)
        (holder,) = asked(api, OPERATOR)["lease_holders"]
        assert holder | {"expires_at": ""} == {
            "name": this_process(), "of": "jobs", "leases": 2, "this": True, "expires_at": "",
        }  # fmt: skip
    finally:
        Waiting.over.set()
        assert runner.stop(300)
    assert asked(api, OPERATOR)["jobs"] == {"running": [], "others": 0}
    assert asked(api, OPERATOR)["lease_holders"] == []


def test_operators_are_told_why_nothing_was_collected(api: ApiServer) -> None:
    """It may name folders, and everybody's things; that it failed is no secret."""
    key, why = key_of(api, "acme"), "/srv/chorus/blobs is of another store."
    api.services.upkeep.last = Collection(datetime.now(UTC), "refused", message=why)
    for who, message in ((OPERATOR, why), (key, "")):
        last = asked(api, who)["store"]["last_collection"]
        assert (last["outcome"], last["message"]) == ("refused", message)
    api.services.upkeep.last = None


def test_how_the_device_was_made_ready(api: ApiServer) -> None:
    assert (found := asked(api, OPERATOR))["compiles"] is None is found["memory"]
    plan = MemoryPlan(100, 10, 20, 5, 7, 30, limit=1000, temporaries=40)
    with CompileWatch() as watch:
        with watch.because("tuning", "a program of tests"):
            jax.jit(lambda x: x * 3 + 41)(1.0).block_until_ready()
        watch.mark_ready()
        assert api.services.serving is not None
        api.services.serving = replace(
            api.services.serving, start=DeviceStart(plan, Compiled(24, 20, 3.5), watch)
        )
        found = asked(api, OPERATOR)
    assert found["memory"]["uses"][0] | {"settings": ""} == {"use": "weights", "bytes": 100, "settings": ""}
    assert (found["memory"]["total"], found["memory"]["limit"]) == (182, 1000)
    compiles = found["compiles"]
    assert (compiles["programs"], compiles["from_cache"], compiles["seconds"]) == (24, 20, 3.5)
    assert compiles["by_cause"]["tuning"] == len(compiles["last"]) >= 1
    assert compiles["last"][0]["program"] == "a program of tests" and compiles["last"][0]["seconds"] > 0
    ended = datetime.fromisoformat(compiles["last"][0]["at"])
    assert abs(datetime.now(UTC) - ended) < timedelta(hours=1)


def test_it_is_answered_while_the_store_is_away_and_before_the_engine_is_there(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise StoreError("The database does not answer.")

    assert asked(api, OPERATOR)["lease_holders"] == []
    with monkeypatch.context() as patch:
        patch.setattr(api.store, "job_holders", away)
        found = asked(api, OPERATOR)
        assert found["lease_holders"] is None is found["store"]["collection_due_at"]
    api.services.library.health.note_read(False)
    found = asked(api, OPERATOR)
    assert found["store"]["trouble"]["status"] == "unreadable" and found["lease_holders"] is None
    api.services.library.health.note_read(True)
    serving, api.services.serving = api.services.serving, None
    assert asked(api, OPERATOR)["slots"] == {"in_use": 0, "total": 0}
    api.services.serving = serving


def test_an_operator_checks_the_store_and_is_told_what_is_wrong(api: ApiServer) -> None:
    key = key_of(api, "acme", "metrics:read", "admin")
    assert asked(api, OPERATOR)["store"]["check"] is None
    head = {"authorization": f"Bearer {OPERATOR}"}
    refused = api.http.post("/v1/store/check", headers={"authorization": f"Bearer {key}"})
    assert refused.status_code == 403 and api.services.upkeep.check is None
    answer = api.http.post("/v1/tasks/checked/versions", content=artifact(3, 1), headers=RAW | head)
    assert answer.status_code == 201
    with api.store._database.write(EVERY_TENANT) as connection:
        connection.execute(update(blobs).values(reference_count=7))
    begun = api.http.post("/v1/store/check", headers=head)
    assert begun.status_code == 202
    StoreCheckAnswer.model_validate(begun.json(), strict=False)
    eventually(lambda: asked(api, OPERATOR)["store"]["check"]["ended_at"] is not None)
    found = asked(api, OPERATOR)["store"]["check"]
    assert (found["clean"], found["versions"], found["blobs"], found["message"]) == (False, 1, 1, "")
    (problem,) = found["problems"]
    assert (problem["kind"], problem["count"], len(problem["first"])) == ("wrong_count", 1, 1)
    assert problem["meaning"] and "--repair" in problem["advice"]
    assert asked(api, key)["store"]["check"] is None
