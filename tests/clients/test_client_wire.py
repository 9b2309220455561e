"""The client's models and routes against the server's own OpenAPI document."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel

from chorus import types
from chorus.routes import (
    audit,
    batches,
    calibrations,
    decisions,
    ensembles,
    evaluations,
    files,
    grants,
    inference,
    jobs,
    keys,
    packs,
    service,
    tasks,
    tenants,
    tuning,
    usage,
    versions,
)
from chorus.types import operations
from chorus.types.base import Usage
from chorus.types.events import DoneEvent, ErrorEvent, ResultEvent, TokenEvent
from chorus.types.inference import ResolvedEnsemble
from chorus.wire import Answer, Plan, Request
from chorus_server.api.schemas.common import AnswerModel
from chorus_server.api.schemas.openai.lenient import LenientBody
from tests.places import ROOT
from tests.server.api.api_harness import ApiServer

CHECKED_IN = ROOT / "docs" / "openapi.json"

ANSWERS: dict[str, type[BaseModel]] = {
    "Usage": Usage,
    "Logprobs": types.TokenLogprobs,
    "TopLogprob": types.TopLogprob,
    "Choice": types.Choice,
    "GenerateResult": types.Generation,
    "GenerateAnswer": types.GenerateResponse,
    "ClassifyResult": types.Classification,
    "ClassifyAnswer": types.ClassifyResponse,
    "MemberAnswer": types.MemberVote,
    "ResolvedEnsemble": ResolvedEnsemble,
    "EnsembleResult": types.EnsembleAnswer,
    "EnsembleAnswer": types.EnsembleResponse,
    "ErrorDetail": types.ErrorDetail,
    "VersionAnswer": types.Version,
    "VersionPage": types.VersionPage,
    "CalibrationAnswer": types.Calibration,
    "CalibrationPage": types.CalibrationPage,
    "CalibrationMeasures": types.CalibrationMeasures,
    "BothMeasures": types.BothMeasures,
    "CoveragePoint": types.CoveragePoint,
    "ReliabilityBin": types.ReliabilityBin,
    "CalibrationJobAnswer": types.CalibrationJob,
    "TaskAnswer": types.Task,
    "TaskPage": types.TaskPage,
    "AliasMoveAnswer": types.AliasMove,
    "AliasHistoryEntry": types.AliasHistoryEntry,
    "AliasesAnswer": types.Aliases,
    "Neighbor": types.Neighbor,
    "NeighborRow": types.RowNeighbors,
    "NeighborsAnswer": types.Neighbors,
    "RowMovement": types.RowMovement,
    "LiveVersionAnswer": types.LiveVersion,
    "EnsembleVersionPage": types.EnsembleVersionPage,
    "PackVersionPage": types.PackVersionPage,
    "MemberName": types.Member,
    "StoredEnsemble": types.Ensemble,
    "EnsemblePage": types.EnsemblePage,
    "HealthAnswer": types.Health,
    "ReadyAnswer": types.Readiness,
    "StoreTrouble": types.StoreTrouble,
    "ModelAnswer": types.ModelInfo,
    "FileAnswer": types.DataFile,
    "FilePage": types.FilePage,
    "JobSummary": types.JobSummary,
    "AnyJobSummary": types.GeneralJobSummary,
    "AnyJobAnswer": types.GeneralJob,
    "AnyJobPage": types.GeneralJobPage,
    "EvaluationSummary": types.EvaluationSummary,
    "EvaluationAnswer": types.Evaluation,
    "EvaluationPage": types.EvaluationPage,
    "BatchAnswer": types.BatchJob,
    "BatchPage": types.BatchPage,
    "JobAnswer": types.Job,
    "JobPage": types.JobPage,
    "JobEventAnswer": types.JobEvent,
    "JobEventList": types.JobEventList,
    "TokenEvent": TokenEvent,
    "ResultEvent": ResultEvent,
    "ErrorEvent": ErrorEvent,
    "DoneEvent": DoneEvent,
    "JobDone": types.JobDone,
    "TenantAnswer": types.Tenant,
    "TenantPage": types.TenantPage,
    "KeyAnswer": types.Key,
    "NewKeyAnswer": types.NewKey,
    "KeyPage": types.KeyPage,
    "AuditRowAnswer": types.AuditRow,
    "AuditPage": types.AuditPage,
    "MeAnswer": types.Me,
    "OwnTenant": types.OwnTenant,
    "OwnKey": types.OwnKey,
    "GrantAnswer": types.Grant,
    "GrantsAnswer": types.GrantList,
    "SharedAnswer": types.Shared,
    "SharedPage": types.SharedPage,
    "LimitLeft": types.LimitLeft,
    "OwnLimits": types.OwnLimits,
    "OperationsAnswer": operations.Operations,
    "RequestsNow": operations.RequestsNow,
    "SlotsNow": operations.SlotsNow,
    "PromptRowsNow": operations.PromptRowsNow,
    "TaskNow": operations.TaskOnDevice,
    "OtherTasks": operations.OtherTasks,
    "PrefillNow": operations.LastPrefill,
    "BatchNow": operations.BatchNow,
    "TenantNow": operations.TenantQueue,
    "OtherTenants": operations.OtherTenants,
    "QueueNow": operations.QueueNow,
    "PromptsNow": operations.PromptsNow,
    "JobNow": operations.RunningJob,
    "JobsNow": operations.JobsNow,
    "CompileNow": operations.CompileNow,
    "CompilesNow": operations.CompilesNow,
    "MemoryUse": operations.MemoryUse,
    "MemoryNow": operations.MemoryPlan,
    "CollectionNow": operations.LastCollection,
    "ProblemFound": operations.StoreProblem,
    "ProblemsFound": operations.StoreProblems,
    "StoreCheckAnswer": operations.StoreCheck,
    "StoreNow": operations.StoreNow,
    "LeaseHolderNow": operations.LeaseHolder,
    "TickAnswer": operations.Tick,
    "UsageSumAnswer": types.UsageSum,
    "UsageAnswer": types.UsageReport,
    "StoredPack": types.Pack,
    "PinnedQuestion": types.PackQuestion,
    "PackPage": types.PackPage,
    "DecisionAnswer": types.Decision,
    "ValueProbability": types.ChoiceProbability,
    "LevelProbability": types.LevelProbability,
    "InputTokens": types.InputTokenDetails,
    "OutputTokens": types.OutputTokenDetails,
    "DecisionUsage": types.DecisionUsage,
    "DecisionsAnswer": types.Decisions,
    "SystemAnswer": types.SystemOneAnswer,
    "SystemUsage": types.SystemOneUsage,
    "SystemOneAnswer": types.SystemOne,
    "ListedModel": types.OpenAIModel,
    "DescribedModel": types.SystemOneModel,
    "ModelsAnswer": types.ModelList,
}
SETTINGS = {
    "GenerateBody": set(inference.Settings.__annotations__)
    | {"task", "input", "inputs", "requests", "stream"},
    "GenerateItem": set(inference.GenerateItem.__annotations__),
}


def document_of(api: ApiServer) -> dict[str, Any]:
    """The checked-in document where there is one, else the running server's."""
    if CHECKED_IN.exists():
        checked_in: dict[str, Any] = json.loads(CHECKED_IN.read_text())
        return checked_in
    live: dict[str, Any] = api.app.openapi()
    return live


@pytest.fixture(scope="module")
def document(api: ApiServer) -> dict[str, Any]:
    return document_of(api)


def json_types(schema: dict[str, Any]) -> set[str]:
    """The JSON types that a schema allows; an object for a reference."""
    if "anyOf" in schema:
        return {kind for option in schema["anyOf"] for kind in json_types(option)}
    if "$ref" in schema:
        return {"object"}
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return {{str: "string", int: "integer", bool: "boolean"}[type(value)] for value in values}
    kind = schema.get("type")
    if kind is None:
        return {"any"}
    return {"number", "integer"} if kind == "number" else {kind}


def mismatches(name: str, ours: type[BaseModel], document: dict[str, Any]) -> list[str]:
    """How a model of ours differs from the server's."""
    theirs = document["components"]["schemas"][name]["properties"]
    mine = ours.model_json_schema()["properties"]
    # A failed item is a model of its own here, so a good item's fields are never null.
    failable = "error" in theirs and "error" not in mine
    found = [
        f"{name} lacks {field}"
        for field in theirs
        if field not in mine and not (failable and field == "error")
    ]
    found += [f"{name} has {field}, the server has not" for field in mine if field not in theirs]
    for field in theirs.keys() & mine.keys():
        told, taken = json_types(theirs[field]), json_types(mine[field])
        if "any" not in taken and not (told - {"any"} - ({"null"} if failable else set())) <= taken:
            found.append(f"{name}.{field} is {sorted(told)} there and {sorted(taken)} here")
    return found


NULL_IS_READ = ["VersionAnswer.notes is ['array', 'null'] there and ['array'] here"]
"""Our validator turns a null into an empty list, which a JSON schema cannot say."""


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_answers_have_the_servers_fields(document: dict[str, Any], name: str) -> None:
    assert [m for m in mismatches(name, ANSWERS[name], document) if m not in NULL_IS_READ] == []


OF_OPENAI = "chorus_server.api.schemas.openai."


def every(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that inherit from one."""
    return [each for own in model.__subclasses__() for each in (own, *every(own))]


def test_every_documented_answer_has_a_model(document: dict[str, Any]) -> None:
    named = document["components"]["schemas"]
    schemas = {name for name, schema in named.items() if "enum" not in schema}
    documents = {"JobDocument", "PromptDocument", "DataDocument", "DataSource", "Recipe"}
    documents |= {
        "CalibrationDocument",
        "EvaluationDocument",
        "EvaluationSubject",
        "BaseSubject",
    }
    documents |= {"BatchDocument", "SweepDocument", "Rung"}
    # Of limits and quotas, which the client gives as they are sent.
    documents |= {"Amounts", "Budget", "KeyLimits", "MonthlyAmounts", "QuotaDetail"}
    documents |= {"StoredAmounts", "TenantLimits", "TenantMonthlyAmounts", "RetentionDays"}
    parts = {"GenerateItem", "ClassifyItem", "TenantChanges", "KeyChanges", "PackQuestion"}
    requests = {name for name in schemas if name.endswith("Body")} | parts | documents
    assert "GenerateBody" in requests
    frameworks = {"HTTPValidationError", "ValidationError"}  # FastAPI's own, documented but never sent
    # Errors in the shapes of the APIs that have the decision routes.
    errors = {"ErrorAnswer", "OpenAIError", "OpenAIErrorDetail", "SystemOneError", "SystemFailure"}
    errors |= {"SystemValidationError", "SystemProblem"}
    # What OpenAI's client reads and writes.
    theirs = {
        model.__name__ for model in (*every(AnswerModel), *every(LenientBody)) if OF_OPENAI in str(model)
    }
    assert schemas - requests - frameworks - errors - theirs - set(ANSWERS) == set()


def test_a_renamed_field_would_be_noticed(document: dict[str, Any]) -> None:
    """The control of the tests above."""

    class Renamed(types.Task):
        when: str = ""

    assert mismatches("TaskAnswer", Renamed, document) == ["TaskAnswer has when, the server has not"]

    class Retyped(types.Task):
        versions: str = ""  # type: ignore[assignment]

    assert mismatches("TaskAnswer", Retyped, document) == [
        "TaskAnswer.versions is ['integer'] there and ['string'] here"
    ]


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_settings_have_the_servers_names(document: dict[str, Any], name: str) -> None:
    assert set(document["components"]["schemas"][name]["properties"]) == SETTINGS[name]


def first_request(plan: Plan[Any]) -> Request:
    return next(iter(plan))


def last_request(plan: Plan[Any], answer: bytes) -> Request:
    """The second request of a call of two steps."""
    steps = iter(plan)
    next(steps)
    return steps.send(Answer(200, {}, answer))


REQUESTS = {
    "generate": first_request(inference.generate(input="x")),
    "classify": first_request(inference.classify("t", input="x")),
    "ensemble": first_request(inference.ensemble("e", input="x")),
    "tasks": first_request(tasks.list_page()),
    "task": first_request(tasks.get("t")),
    "delete": first_request(tasks.delete("t")),
    "push": first_request(versions.push("t", b"x")),
    "versions": first_request(versions.list_versions("t")),
    "version": first_request(versions.get("t", 1)),
    "delete_version": first_request(versions.delete("t", 1)),
    "artifact": first_request(versions.artifact("t", 1)),
    "neighbors": first_request(tasks.neighbors("t", 1)),
    "calibrate": first_request(calibrations.calibrate("t@1", "file-" + "0" * 24)),
    "calibrations": first_request(calibrations.list_page("t", 1)),
    "calibration": first_request(calibrations.get("t@1", 1)),
    "calibration job": first_request(calibrations.get_job("t", "t")),
    "cancel calibration": first_request(calibrations.cancel_job("t", "t")),
    "aliases": first_request(tasks.aliases("t")),
    "promote": first_request(tasks.promote("t", 1)),
    "remove_alias": first_request(tasks.remove_alias("t", "live")),
    "rollback": first_request(tasks.rollback("t")),
    "ensembles": first_request(ensembles.list_page()),
    "create": first_request(ensembles.create("e", ["t"])),
    "show": first_request(ensembles.get("e")),
    "drop": first_request(ensembles.delete("e")),
    "versions of an ensemble": first_request(ensembles.list_versions("e")),
    "ensemble aliases": first_request(ensembles.aliases("e")),
    "promote ensemble": first_request(ensembles.promote("e", 1)),
    "remove ensemble alias": first_request(ensembles.remove_alias("e", "live")),
    "roll an ensemble back": first_request(ensembles.rollback("e")),
    "packs": first_request(packs.list_pack_page()),
    "create pack": first_request(packs.create_pack("e", {"q": "t"})),
    "pack": first_request(packs.get_pack("e")),
    "drop pack": first_request(packs.delete_pack("e")),
    "versions of a pack": first_request(packs.list_pack_versions("e")),
    "pack aliases": first_request(packs.pack_aliases("e")),
    "promote pack": first_request(packs.promote_pack("e", 1)),
    "remove pack alias": first_request(packs.remove_pack_alias("e", "live")),
    "roll a pack back": first_request(packs.rollback_pack("e")),
    "pack grants": first_request(grants.pack_grants("e")),
    "share pack": first_request(grants.share_pack("e", "t")),
    "unshare pack": first_request(grants.unshare_pack("e", "t")),
    "decide": first_request(decisions.decide("t", "x", [])),
    "system one": first_request(decisions.system_one("t", "x", {})),
    "models": first_request(decisions.models()),
    "push file": first_request(files.push(b"x", name="a.tsv")),
    "files": first_request(files.list_page()),
    "file": first_request(files.get("t")),
    "delete file": first_request(files.delete("t")),
    "content": first_request(files.content("t")),
    "start evaluation": first_request(evaluations.start("t", "file-" + "0" * 24)),
    "start evaluation of a pack": first_request(
        evaluations.start({"pack": "p", "question": "q"}, "file-" + "0" * 24)
    ),
    "evaluations": first_request(evaluations.list_page()),
    "evaluation": first_request(evaluations.get("t")),
    "evaluation events": evaluations.events("t").request(),
    "cancel evaluation": first_request(evaluations.cancel("t")),
    "resume evaluation": first_request(evaluations.resume("t")),
    "jobs of any kind": first_request(jobs.list_page()),
    "job of any kind": first_request(jobs.get("t")),
    "events of any job": jobs.events("t").request(),
    "cancel any job": first_request(jobs.cancel("t")),
    "resume any job": first_request(jobs.resume("t")),
    "start batch": first_request(batches.start("file-" + "0" * 24, "/v1/classify")),
    "batches": first_request(batches.list_page()),
    "batch": first_request(batches.get("t")),
    "batch events": batches.events("t").request(),
    "cancel batch": first_request(batches.cancel("t")),
    "resume batch": first_request(batches.resume("t")),
    "start": first_request(tuning.start("t", train={"path": "/x"})),
    "jobs": first_request(tuning.list_page()),
    "job": first_request(tuning.get("t")),
    "events": tuning.events("t").request(),
    "cancel": first_request(tuning.cancel("t")),
    "pause": first_request(tuning.pause("t")),
    "resume": first_request(tuning.resume("t")),
    "model": first_request(service.model()),
    "healthz": first_request(service.health()),
    "readyz": first_request(service.ready()),
    "metrics": first_request(service.metrics()),
    "operations": first_request(service.operations()),
    "check store": first_request(service.check_store()),
    "me": first_request(service.me()),
    "tenants": first_request(tenants.list_page()),
    "create tenant": first_request(tenants.create("t")),
    "tenant": first_request(tenants.get("t")),
    "update tenant": first_request(tenants.update("t", weight=2)),
    "suspend tenant": first_request(tenants.suspend("t")),
    "resume tenant": first_request(tenants.resume("t")),
    "delete tenant": first_request(tenants.delete("t")),
    "keys": first_request(keys.list_page()),
    "create key": first_request(keys.create("n", scopes=["infer"])),
    "key": first_request(keys.get("t")),
    "revoke key": first_request(keys.revoke("t")),
    "update key": first_request(keys.update("t", limits={})),
    "task grants": first_request(grants.task_grants("t")),
    "share task": first_request(grants.share_task("t", "t")),
    "unshare task": first_request(grants.unshare_task("t", "t")),
    "ensemble grants": first_request(grants.ensemble_grants("e")),
    "share ensemble": first_request(grants.share_ensemble("e", "t")),
    "unshare ensemble": first_request(grants.unshare_ensemble("e", "t")),
    "shared": first_request(grants.shared()),
    "usage": first_request(usage.usage()),
    "audit": first_request(audit.page()),
}


def served(document: dict[str, Any]) -> set[tuple[str, str]]:
    """Methods and path templates of the document, parameters without names; not those of OpenAI's client."""
    return {
        (method.upper(), re.sub(r"\{[^}]+\}", "*", path))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation["tags"] != ["openai"]
    }


def asked() -> set[tuple[str, str]]:
    """Methods and paths of every call, our sample names as parameters."""
    own = {"t", "e", "1", "live"}
    return {
        (request.method, "/".join("*" if part in own else part for part in request.path.split("/")))
        for request in REQUESTS.values()
    }


def test_every_route_is_reached_and_no_other(document: dict[str, Any]) -> None:
    assert asked() == served(document)


def test_query_names_are_the_servers(document: dict[str, Any]) -> None:
    given = {
        "tasks": first_request(tasks.list_page(prefix="p", label="l", limit=1, cursor="c")),
        "versions": first_request(versions.list_versions("acme/t", limit=1, cursor="c")),
        "artifact": first_request(versions.artifact("t", 1, format="npy")),
        "neighbors": first_request(tasks.neighbors("t", 1, top_k=3)),
        "calibrations": first_request(calibrations.list_page("acme/t", 1, limit=1, cursor="c")),
        "ensembles": first_request(ensembles.list_page(prefix="p", limit=1, cursor="c")),
        "packs": first_request(packs.list_pack_page(prefix="p", limit=1, cursor="c")),
        "pack by version": first_request(packs.get_pack("e@1")),
        "pack by alias": first_request(packs.get_pack("e@live")),
        "versions of an ensemble": first_request(ensembles.list_versions("acme/e", limit=1, cursor="c")),
        "ensemble aliases": first_request(ensembles.aliases("acme/e", limit=1, cursor="c")),
        "versions of a pack": first_request(packs.list_pack_versions("acme/e", limit=1, cursor="c")),
        "pack aliases": first_request(packs.pack_aliases("acme/e", limit=1, cursor="c")),
        "by version": first_request(ensembles.get("e@1")),
        "by alias": first_request(ensembles.get("e@live")),
        "push file": first_request(files.push(b"x", name="a.tsv")),
        "files": first_request(files.list_page(limit=1, cursor="c")),
        "jobs": first_request(tuning.list_page(status="queued", limit=1, cursor="c")),
        "events": tuning.events("t", after=3).request(),
        "evaluations": first_request(evaluations.list_page(status="queued", limit=1, cursor="c")),
        "evaluation events": evaluations.events("t", after=3).request(),
        "past evaluation events": first_request(evaluations.past_events("t", after=3)),
        "batches": first_request(batches.list_page(status="queued", limit=1, cursor="c")),
        "batch events": batches.events("t", after=3).request(),
        "jobs of any kind": first_request(jobs.list_page(kind="batch", status="queued", limit=1, cursor="c")),
        "events of any job": jobs.events("t", after=3).request(),
        "past events of any job": first_request(jobs.past_events("t", after=3)),
        "past batch events": first_request(batches.past_events("t", after=3)),
        "usage": first_request(
            usage.usage(since="a", until="b", group_by=["task"], tenant="acme", task="t", top=2)
        ),
        "operations": first_request(service.operations(minutes=5)),
        "past events": first_request(tuning.past_events("t", after=3)),
        "tenants": first_request(tenants.list_page(prefix="p", status="active", limit=1, cursor="c")),
        "keys": first_request(keys.list_page(tenant="acme", limit=1, cursor="c")),
        "create key": first_request(keys.create("n", scopes=["infer"], tenant="acme")),
        "key": first_request(keys.get("t", tenant="acme")),
        "revoke key": first_request(keys.revoke("t", tenant="acme")),
        "audit": first_request(
            audit.page(tenant="acme", after=1, limit=1, actor="a", action="b", subject="c")
        ),
    }
    for what, request in given.items():
        path = "/".join("*" if part in ("t", "e", "1") else part for part in request.path.split("/"))
        template = next(one for one in document["paths"] if re.sub(r"\{[^}]+\}", "*", one) == path)
        operation = document["paths"][template][request.method.lower()]
        known = {
            parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"
        }
        assert {name for name, _ in request.query} <= known, what


def test_events_have_the_documented_names() -> None:
    kinds = {"token": TokenEvent, "result": ResultEvent, "error": ErrorEvent, "done": DoneEvent}
    assert kinds == types.events.EVENT_TYPES
