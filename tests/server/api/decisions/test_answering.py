"""Both routes on the fake device, whose scores can be computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from chorus_server.api.schemas.decisions import DecisionsAnswer, SystemOneAnswer
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from prompts_store.testing import example_calibration
from tests.server.api.api_harness import ApiServer, error_of, eventually

STATE = "a good film"
CHOICE = {"type": "choice", "instructions": "Which?", "criteria": {"good": "It is", "bad": None}}
NOUL = {"type": "noul", "instructions": "Is it?"}
SCORE = {"type": "score", "criteria": ["cold", "warm", None]}
MAPPED = {"true": "good", "false": "bad"}


def choice(*options: str) -> dict[str, Any]:
    return {"type": "choice", "criteria": dict.fromkeys(options)}


def score(*levels: str) -> dict[str, Any]:
    return {"type": "score", "criteria": list(levels)}


@pytest.fixture(scope="module")
def stocked(api: ApiServer) -> ApiServer:
    api.push("mood", labels=["good", "bad"])
    api.push("told", seed=1, labels=["yes", "no"], template="{instructions} {text}")
    api.push("pair", seed=2, labels=["yes", "no"], template="{premise} {hypothesis}")
    api.push("deaf", seed=3, labels=["yes", "no"], template="{instructions}")
    pack = {"happy": {"task": "mood", "values": MAPPED}, "mood": {"task": "mood"}, "told": {"task": "told"}}
    for name, policy in (("desk", "refuse"), ("open", "base")):
        body = {"questions": pack, "unknown_questions": policy}
        assert api.post(f"/v1/packs/{name}/versions", body).status_code == 201
    return api


def asked(api: ApiServer, questions: Any, model: str = "mood", state: Any = STATE, **more: Any) -> Any:
    answer = api.post("/v1/systemone", {"model": model, "state": state, "questions": questions, **more})
    assert answer.status_code == 200, answer.text
    SystemOneAnswer.model_validate(answer.json())
    return answer.json()


def ranked(api: ApiServer, task: str | None, labels: list[str], value: Any = STATE) -> dict[str, float]:
    """The same question to the route that it must agree with."""
    answer = api.post("/v1/classify", {"task": task, "input": value, "labels": labels}).json()
    probabilities: dict[str, float] = answer["results"][0]["probabilities"]
    return probabilities


def test_a_task_ranks_the_values_of_every_question(stocked: ApiServer) -> None:
    found = asked(stocked, {"a": CHOICE, "b": NOUL, "c": SCORE})
    assert found["model"] == "default/mood@1"
    choice, noul, score = (found["answers"][name] for name in "abc")
    assert choice["probabilities"] == ranked(stocked, "mood", ["good", "bad"])
    assert choice["choice"] == max(choice["probabilities"], key=choice["probabilities"].__getitem__)
    assert noul == {"type": "noul", "noul": ranked(stocked, "mood", ["true", "false"])["true"]}
    levels = list(ranked(stocked, "mood", ["cold", "warm", "2"]).values())
    assert list(score["probabilities"].values()) == levels
    assert score["legend"] == {"0": "cold", "1": "warm", "2": "2"}
    assert math.isclose(score["score"], levels[1] + 2 * levels[2])


def test_openai_gets_the_same_numbers_in_its_own_fields(stocked: ApiServer) -> None:
    questions = [
        {"type": "choice", "name": "m", "instructions": "?", "choices": [{"value": "good"}, {"value": True}]},
        {"type": "predicate", "instructions": "?", "name": None},
        {"type": "score", "instructions": "?", "levels": [{"label": "cold"}, {"label": "warm"}]},
    ]
    body = {"model": "mood", "input": [{"role": "user", "content": STATE}], "questions": questions}
    answer = stocked.post("/v1/decisions", {**body, "safety_identifier": "x", "prompt_cache_key": None})
    assert answer.status_code == 200, answer.text
    DecisionsAnswer.model_validate(answer.json())
    choice, predicate, score = answer.json()["answers"]
    expected = ranked(stocked, "mood", ["good", "true"])
    assert [each["probability"] for each in choice["probabilities"]] == list(expected.values())
    assert [each["value"] for each in choice["probabilities"]] == ["good", True]
    assert (choice["name"], predicate["name"]) == ("m", None)
    assert predicate["probability"] == ranked(stocked, "mood", ["true", "false"])["true"]
    assert [each["label"] for each in score["probabilities"]] == ["cold", "warm"]
    usage = answer.json()["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] > 0


def test_a_pack_maps_values_to_labels(stocked: ApiServer) -> None:
    found = asked(stocked, {"happy": NOUL, "mood": CHOICE}, "desk")
    labels = ranked(stocked, "mood", ["good", "bad"])
    assert found["model"] == "default/desk@1"
    assert found["answers"]["happy"]["noul"] == labels["good"]
    assert found["answers"]["mood"]["probabilities"] == labels


def test_exactly_the_labels_of_a_calibration_are_calibrated(stocked: ApiServer) -> None:
    stocked.push("sure", seed=5, labels=["no", "yes"])
    entry = {"task": "sure", "values": {"true": "yes", "false": "no"}}
    assert stocked.post("/v1/packs/surely/versions", {"questions": {"is": entry}}).status_code == 201
    questions = {"own": choice("yes", "no"), "more": choice("yes", "no", "maybe"), "other": NOUL}
    raw = asked(stocked, questions, "sure")["answers"]
    mapped = asked(stocked, {"is": NOUL}, "surely")["answers"]["is"]
    assert mapped["noul"] == raw["own"]["probabilities"]["yes"]

    stocked.store.calibrate("default", "sure", 1, example_calibration(4.0, prior=(0.5, -0.5)))
    eventually(lambda: ranked(stocked, "sure", ["yes", "no"]) != raw["own"]["probabilities"])
    found = asked(stocked, questions, "sure")["answers"]
    shares = found["own"]["probabilities"]
    distance = math.log(raw["own"]["probabilities"]["yes"] / raw["own"]["probabilities"]["no"])
    assert math.log(shares["yes"] / shares["no"]) == pytest.approx((distance + 1.0) / 4)
    assert shares == ranked(stocked, "sure", ["yes", "no"])
    assert asked(stocked, {"is": NOUL}, "surely")["answers"]["is"]["noul"] == shares["yes"]
    assert (found["more"], found["other"]) == (raw["more"], raw["other"])


def test_a_question_that_a_pack_does_not_know_goes_to_the_base_or_is_refused(stocked: ApiServer) -> None:
    answer = stocked.post("/v1/systemone", {"model": "desk", "state": STATE, "questions": {"new": NOUL}})
    assert answer.status_code == 422
    assert error_of(answer)["field"] == "questions.new" and "'new'" in error_of(answer)["message"]
    found = asked(stocked, {"new": NOUL, "happy": NOUL}, "open")["answers"]
    assert found["new"] == asked(stocked, {"other": NOUL}, "base")["answers"]["other"]
    text = "Is it?\nOPTIONS:\n- yes\n- no\n\na good film"
    assert found["new"]["noul"] == ranked(stocked, None, ["yes", "no"], text)["yes"]


def test_instructions_reach_a_prompt_through_its_template_only(stocked: ApiServer) -> None:
    questions = {"a": CHOICE, "b": {**CHOICE, "instructions": "Another one?"}}
    plain = asked(stocked, questions)["answers"]
    assert plain["a"] == plain["b"]
    told = asked(stocked, questions, "told")["answers"]
    value = {"instructions": "Another one?", "text": STATE}
    assert told["b"]["probabilities"] == ranked(stocked, "told", ["good", "bad"], value)
    short, long = (asked(stocked, {"q": questions[name]}, "told")["usage"]["input_tokens"] for name in "ab")
    assert long > short
    plain_tokens = [asked(stocked, {"q": questions[name]})["usage"]["input_tokens"] for name in "ab"]
    assert plain_tokens[0] == plain_tokens[1]


def test_a_state_is_canonical_json_or_fills_the_fields(stocked: ApiServer) -> None:
    one = asked(stocked, {"q": CHOICE}, state={"b": [1.0, "x"], "a": None})
    other = asked(stocked, {"q": CHOICE}, state='{"a":null,"b":[1,"x"]}')
    assert one == other
    fields = {"premise": "rain falls", "hypothesis": "sky is good"}
    paired = asked(stocked, {"q": CHOICE}, "pair", fields)
    assert paired["answers"]["q"]["probabilities"] == ranked(stocked, "pair", ["good", "bad"], fields)


@pytest.mark.parametrize(
    ("model", "questions", "state", "field", "words"),
    [
        ("desk", {"happy": score("good", "worse")}, STATE, "questions.happy.criteria.1", "has no label"),
        ("mood", {"q": choice("good", "good ")}, STATE, "questions.q.criteria.1", "'q'"),
        ("mood", {"q": choice("good film " * 9, "b")}, STATE, "questions.q.criteria.0", "shorten"),
        ("mood", {"q": score("good", " " * 600 + "b")}, STATE, "questions.q.criteria.1", "512"),
        ("mood", {"q": score("good", "b" * 300_000)}, STATE, "questions.q.criteria.1", "512"),
        ("mood", {"q": NOUL}, "good film " * 60, "questions.q", "limit"),
        ("pair", {"q": NOUL}, STATE, "questions.q", "premise"),
        ("pair", {"q": NOUL}, {"premise": "x", "other": "y"}, "questions.q", "hypothesis"),
        ("deaf", {"q": NOUL}, STATE, "questions.q", "no field for the state"),
        ("mood", {"q": NOUL}, 3, "state", "object"),
        ("mood", {"q": {"type": "box"}}, STATE, "questions.q.type", "noul"),
        ("mood@x y", {"q": NOUL}, STATE, "model", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_named(
    stocked: ApiServer, model: str, questions: Any, state: Any, field: str, words: str
) -> None:
    answer = stocked.post("/v1/systemone", {"model": model, "state": state, "questions": questions})
    assert answer.status_code == 422, answer.text
    assert error_of(answer)["field"] == field
    assert words in error_of(answer)["message"]


def test_each_api_has_its_own_shape_of_errors(stocked: ApiServer) -> None:
    unknown = stocked.post("/v1/systemone", {"model": "nobody", "state": "x", "questions": {"q": NOUL}})
    assert unknown.status_code == 404
    assert unknown.json()["detail"]["error_type"] == "not_found_error"
    assert unknown.headers["x-typesafe-request-id"] == unknown.headers["x-request-id"]
    broken = stocked.http.post("/v1/systemone", content=b"{", headers={"content-type": "application/json"})
    assert broken.status_code == 422 and broken.json()["detail"][0]["loc"] == ["body"]
    assert error_of(stocked.http.get("/v1/systemone"))["code"] == "method_not_allowed"
    body = {"model": "nobody", "input": "x", "questions": [{"type": "predicate", "instructions": "?"}]}
    missing = stocked.post("/v1/decisions", body)
    assert missing.status_code == 404
    assert missing.json()["error"] == {
        "message": "There is no task default/nobody.",
        "type": "not_found_error",
        "param": "model",
        "code": "unknown_task",
    }
    many = [{"type": "predicate", "instructions": "?"}] * 401
    refused = stocked.post("/v1/decisions", {**body, "questions": many})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "questions"
    assert stocked.post("/v1/systemone", {**body, "assets": {"a": 1}, "state": "x", "questions": {}})


def test_names_that_clients_have_fixed_are_mapped(tmp_path: Path, vocabulary: Vocabulary) -> None:
    mapped = "jev-latest=mood,gpt-6-luna=base"
    with ApiServer(tmp_path, vocabulary, decision_models=mapped) as api:
        api.push("mood", labels=["good", "bad"])
        assert asked(api, {"q": NOUL}, "jev-latest")["model"] == "default/mood@1"
        assert asked(api, {"q": NOUL}, "gpt-6-luna")["model"] == "tiny"
        assert asked(api, {"q": NOUL}, "tiny")["model"] == "tiny"
        listed = api.http.get("/v1/models").json()
        names = [model["id"] for model in listed["data"]]
        assert names == ["jev-latest", "gpt-6-luna", "base", "mood"]
        assert [model["name"] for model in listed["models"]] == names


def test_400_questions_are_one_batch_and_change_nothing(stocked: ApiServer) -> None:
    questions: dict[str, Any] = {f"q{i}": {**CHOICE, "instructions": f"Is it {i}?"} for i in range(398)}
    questions |= {"first": NOUL, "last": SCORE}
    found = asked(stocked, questions, "told")["answers"]
    assert list(found) == list(questions)
    alone = asked(stocked, {"x": questions["q7"]}, "told")["answers"]["x"]
    assert found["q7"] == alone


def test_decisions_are_limited_and_counted_as_any_inference(tmp_path: Path, vocabulary: Vocabulary) -> None:
    key = "a-key-of-tests-0123456789"
    ring = KeyRing({key: Principal("acme", "app")}, None)
    with ApiServer(tmp_path, vocabulary, keys=ring) as api:
        bare = api.post("/v1/systemone", {"model": "base", "state": "x", "questions": {"q": NOUL}})
        assert bare.status_code == 401
        assert bare.json()["detail"]["error_type"] == "authentication_error"
        api.http.headers["authorization"] = f"Bearer {key}"
        limited = api.http.patch("/v1/tenants/acme", json={"limits": {"per_minute": {"requests": 3}}})
        assert limited.status_code == 200
        body = {"model": "base", "state": "x", "questions": {"a": NOUL, "b": NOUL}}
        assert api.post("/v1/systemone", body).status_code == 200
        refused = api.post("/v1/systemone", body)
        assert refused.status_code == 429 and "retry-after" in refused.headers
        assert refused.json()["detail"]["error_type"] == "rate_limit_error"


def test_a_long_state_is_not_copied_for_every_question(stocked: ApiServer) -> None:
    questions = {f"q{number}": {**NOUL, "instructions": f"{number}?"} for number in range(400)}
    body = {"model": "base", "state": "good " * 20_000, "questions": questions, "truncate": True}
    refused = stocked.post("/v1/systemone", body)
    assert refused.status_code == 422 and "fewer questions" in error_of(refused)["message"]
    few = {**body, "questions": {"q": NOUL}}
    assert stocked.post("/v1/systemone", few).status_code == 200


def test_a_shared_pack_vouches_for_its_versions(tmp_path: Path, vocabulary: Vocabulary) -> None:
    owner, friend = "a-key-of-acme-0123456789", "a-key-of-birch-0123456789"
    ring = KeyRing({owner: Principal("acme", "app"), friend: Principal("birch", "app")}, None)
    with ApiServer(tmp_path, vocabulary, keys=ring) as api:
        api.http.headers["authorization"] = f"Bearer {owner}"
        api.push("mood", labels=["good", "bad"])
        body = {"questions": {"happy": {"task": "mood", "values": MAPPED}}}
        assert api.post("/v1/packs/desk/versions", body).status_code == 201

        def friends(model: str) -> int:
            asking = {"model": model, "state": STATE, "questions": {"happy": NOUL}}
            headers = {"authorization": f"Bearer {friend}"}
            return api.http.post("/v1/systemone", json=asking, headers=headers).status_code

        assert friends("acme/desk") == 404
        assert api.http.put("/v1/packs/desk/grants/birch", json={"rights": ["infer"]}).status_code == 200
        assert friends("acme/desk") == 200
        assert friends("acme/mood") == 404, "the task itself is not shared"
        assert api.http.delete("/v1/packs/desk/grants/birch").status_code == 204
        assert friends("acme/desk") == 404


def test_a_task_goes_before_a_pack_of_its_name(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with ApiServer(tmp_path, vocabulary) as api:
        api.push("mood", labels=["good", "bad"])
        body = {"questions": {"q": {"task": "mood", "values": MAPPED}}, "unknown_questions": "base"}
        assert api.post("/v1/packs/other/versions", body).status_code == 201
        assert asked(api, {"new": NOUL}, "other")["model"] == "default/other@1"
        api.push("other", labels=["good", "bad"], seed=1)
        assert asked(api, {"new": NOUL}, "other")["model"] == "default/other@1"
        assert (
            asked(api, {"q": NOUL}, "other")["answers"]["q"]["noul"]
            == ranked(api, "other", ["true", "false"])["true"]
        )
