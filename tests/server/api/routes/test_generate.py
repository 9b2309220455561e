"""`POST /v1/generate` over a real socket; the fake device's tokens are computable by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chorus_server.api.schemas.inference import GenerateAnswer
from chorus_server.engine.fake_executor import log_probabilities_near, log_probability
from chorus_server.engine.plans import PrefillPlan
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, error_of


def generate(api: ApiServer, **body: Any) -> dict[str, Any]:
    answer = api.post("/v1/generate", body)
    assert answer.status_code == 200, answer.text
    GenerateAnswer.model_validate(answer.json(), strict=False)
    result: dict[str, Any] = answer.json()
    return result


def test_the_base_model_answers_without_a_task(api: ApiServer) -> None:
    answer = generate(api, task=None, input="a great film", max_new_tokens=8)
    (result,) = answer["results"]
    assert (result["task"], result["version"], result["digest"]) == (None, None, None)
    assert result["usage"]["prompt_tokens"] == 0
    assert answer["id"].startswith("req_")


def test_a_mixed_batch_answers_in_the_order_asked(api: ApiServer) -> None:
    first = api.push("mixed-a", rows=3, seed=1)
    second = api.push("mixed-b", rows=5, seed=2)
    requests = [
        {"task": "mixed-b", "input": "good"},
        {"task": None, "input": "good"},
        {"task": "default/mixed-a@1", "input": "good"},
        {"task": "mixed-b@live", "input": "good"},
    ]
    results = generate(api, requests=requests, max_new_tokens=8)["results"]
    assert [r["digest"] for r in results] == [second["digest"], None, first["digest"], second["digest"]]
    assert [r["usage"]["prompt_tokens"] for r in results] == [5, 0, 3, 5]
    assert results[0] == results[3]
    alone = generate(api, task="mixed-a", input="good", max_new_tokens=8)["results"][0]
    assert alone == results[2]


def test_template_fields_are_rendered(api: ApiServer) -> None:
    api.push("nli", template="hypothesis: {hypothesis} premise: {premise}")
    api.push("plain")
    fields = {"hypothesis": "rain falls", "premise": "it is warm"}
    made = generate(api, task="nli", input=fields)["results"][0]
    same = generate(api, task="plain", input="hypothesis: rain falls premise: it is warm")["results"][0]
    assert made["text"] == same["text"] and made["usage"] == same["usage"]


def test_settings_of_the_request_go_before_those_of_the_version(api: ApiServer) -> None:
    api.push("capped", settings=json.dumps({"max_new_tokens": 1}))
    text = "the film was great and moving"
    assert generate(api, task="capped", input=text)["results"][0]["usage"]["output_tokens"] <= 1
    long = generate(api, task="capped", input=text, max_new_tokens=8)["results"][0]
    free = generate(api, requests=[{"task": "capped", "input": text, "max_new_tokens": 8}], max_new_tokens=1)
    assert free["results"][0] == long


def test_samples_and_log_probabilities(api: ApiServer, vocabulary: Any) -> None:
    body = {"task": None, "input": "good", "temperature": 1.0, "seed": 3, "n": 3, "logprobs": True}
    result = generate(api, **body, max_new_tokens=8)["results"][0]
    assert len(result["choices"]) == 3
    assert result["text"] == result["choices"][0]["text"]
    for choice in result["choices"]:
        assert len(choice["logprobs"]["tokens"]) == len(choice["logprobs"]["token_logprobs"])
    assert generate(api, **body, max_new_tokens=8)["results"][0] == result


def test_beams_answer_best_first(api: ApiServer) -> None:
    result = generate(api, task=None, input="good", num_beams=4, n=2, max_new_tokens=8)["results"][0]
    scores = [choice["score"] for choice in result["choices"]]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)


def events(api: ApiServer, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    with api.http.stream("POST", "/v1/generate", json={**body, "stream": True}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        blocks = answer.read().decode().strip().split("\n\n")
    parsed = []
    for block in blocks:
        name, data = block.split("\n")
        parsed.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return parsed


@pytest.mark.parametrize("stop", [[], ["e"], ["th", "oo"]])
def test_streamed_pieces_join_to_the_text(api: ApiServer, stop: list[str]) -> None:
    body = {"task": None, "inputs": ["good film", "a waste of two hours"], "max_new_tokens": 8, "stop": stop}
    whole = generate(api, **body)["results"]
    seen = events(api, body)
    assert seen[-1][0] == "done"
    for index, expected in enumerate(whole):
        pieces = [data["text"] for name, data in seen if name == "token" and data["index"] == index]
        (result,) = [data["result"] for name, data in seen if name == "result" and data["index"] == index]
        assert result == expected
        assert "".join(pieces) == expected["text"]


@pytest.mark.parametrize("route", ["generate", "ensemble"])
def test_one_stop_text_of_a_version_is_one_text_and_not_its_letters(api: ApiServer, route: str) -> None:
    inputs = ["good film", "a waste of two hours", "the sky is warm"]

    def texts(task: str, stop: Any) -> list[str]:
        api.push(task, settings=json.dumps({"max_new_tokens": 8, "stop": stop}))
        if route == "generate":
            return [result["text"] for result in generate(api, task=task, inputs=inputs)["results"]]
        answer = api.post("/v1/ensemble", {"tasks": [task], "inputs": inputs})
        return [result["answer"] for result in answer.json()["results"]]

    alone, listed = texts(f"{route}-stop", "eqeq"), texts(f"{route}-stops", ["eqeq"])
    assert alone == listed != texts(f"{route}-letters", ["e", "q"])


def test_streamed_samples_and_beams(api: ApiServer) -> None:
    body = {"task": None, "input": "good", "temperature": 1.0, "seed": 5, "n": 2, "max_new_tokens": 8}
    seen = events(api, body)
    (result,) = [data["result"] for name, data in seen if name == "result"]
    for place, choice in enumerate(result["choices"]):
        pieces = [data["text"] for name, data in seen if name == "token" and data["choice"] == place]
        assert "".join(pieces) == choice["text"]
    beams = events(api, {"task": None, "input": "good", "num_beams": 2, "max_new_tokens": 8})
    assert [name for name, _ in beams] == ["result", "done"]


def test_a_long_text_is_refused_or_cut_and_said(api: ApiServer) -> None:
    api.push("long", rows=4)
    text = "good film " * 200
    refused = api.post("/v1/generate", {"task": "long", "inputs": ["good", text]})
    error = error_of(refused)
    assert (refused.status_code, error["code"], error["field"]) == (400, "input_too_long", "inputs.1")
    assert "64" in error["message"]
    result = generate(api, task="long", input=text, truncate=True)["results"][0]
    assert result["truncated"] is True
    assert result["usage"]["input_tokens"] == 64 and result["usage"]["prompt_tokens"] == 4
    short = generate(api, task="long", input="good", truncate=True)["results"][0]
    assert short["truncated"] is False


def test_a_batch_is_validated_whole_before_anything_runs(api: ApiServer) -> None:
    steps = api.engine.stats().steps
    answer = api.post(
        "/v1/generate",
        {"requests": [{"task": None, "input": "good"}, {"task": "nowhere", "input": "good"}]},
    )
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["field"]) == (404, "unknown_task", "requests.1.task")
    assert api.engine.wait_idle(300) and api.engine.stats().steps == steps


def test_a_failure_after_validation_is_per_item(api: ApiServer) -> None:
    api.push("fine", seed=11)
    gone = api.push("gone", seed=12)
    blob = next(api.settings.data_dir.rglob(f"*{gone['digest']}*"))
    blob.write_bytes(b"damaged")
    answer = api.post(
        "/v1/generate",
        {"requests": [{"task": "gone", "input": "good"}, {"task": "fine", "input": "good"}]},
    )
    assert answer.status_code == 200
    broken, fine = answer.json()["results"]
    assert broken["error"]["code"] == "corrupt_blob" and broken["task"] == "default/gone"
    assert fine["task"] == "default/fine" and "error" not in fine
    alone = api.post("/v1/generate", {"task": "gone", "input": "good"})
    assert alone.status_code == 500 and error_of(alone)["code"] == "corrupt_blob"


def test_top_logprobs_tells_the_likeliest_at_each_place_as_many_as_were_asked_for(
    api: ApiServer, vocabulary: Vocabulary
) -> None:
    body = {"input": "good", "max_new_tokens": 8, "min_new_tokens": 3}
    requests = [{"task": None, **body, "top_logprobs": most} for most in (2, 0, 5)]
    two, none, five = generate(api, requests=requests)["results"]
    assert "choices" not in none
    for result, most in ((two, 2), (five, 5)):
        said = result["choices"][0]["logprobs"]
        tokens = [place[0]["id"] for place in said["top_logprobs"]]
        assert said["tokens"] == [vocabulary.piece(token) for token in tokens] and len(tokens) > 2
        assert said["token_logprobs"] == [log_probability(token) for token in tokens]
        for token, place in zip(tokens, said["top_logprobs"], strict=True):
            assert [(each["id"], each["logprob"]) for each in place] == list(
                log_probabilities_near(token, most)
            )
            assert all(each["token"] == vocabulary.piece(each["id"]) for each in place)


def test_beams_have_log_probabilities_too(api: ApiServer) -> None:
    asked = {"num_beams": 3, "n": 3, "max_new_tokens": 8, "length_penalty_rule": "huggingface"}
    choices = generate(api, task=None, input="good", top_logprobs=4, **asked)["results"][0]["choices"]
    assert len(choices) == 3
    for choice in choices:
        said = choice["logprobs"]
        assert len(said["tokens"]) == len(said["token_logprobs"]) == len(said["top_logprobs"]) > 0
        assert all(len(place) == 4 for place in said["top_logprobs"])


def test_settings_that_change_logits_reach_the_plan(api: ApiServer) -> None:
    asked = {
        "repetition_penalty": 1.5,
        "frequency_penalty": -0.5,
        "presence_penalty": 1,
        "no_repeat_ngram_size": 10,
        "logit_bias": {"12": -3, "7": 2.5},
    }
    api.push("biased", settings=json.dumps(asked))
    generate(api, task="biased", input="good", max_new_tokens=4, no_repeat_ngram_size=2)
    sampling = [
        admission.sampling
        for plan in api.executor.plans
        if isinstance(plan, PrefillPlan)
        for admission in plan.admissions
    ][-1]
    assert (sampling.repetition_penalty, sampling.frequency_penalty) == (1.5, -0.5)
    assert (sampling.presence_penalty, sampling.no_repeat_ngram_size) == (1.0, 2)
    assert sampling.logit_bias == ((7, 2.5), (12, -3.0))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"num_beams": 11}, "num_beams"),
        ({"num_beams": 0}, "num_beams"),
        ({"num_beams": 9}, "num_beams"),
        ({"num_beams": 2, "length_penalty": -1}, "length_penalty"),
        ({"num_beams": 2, "length_penalty_rule": "hf"}, "length_penalty_rule"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"presence_penalty": -2.5}, "presence_penalty"),
        ({"no_repeat_ngram_size": 11}, "no_repeat_ngram_size"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {"5": True}}, "logit_bias"),
        ({"logit_bias": {str(id): 1 for id in range(65)}}, "logit_bias"),
        ({"logit_bias": {"900000000": 1}}, "logit_bias"),
        ({"special_tokens": "yes"}, "special_tokens"),
        ({"num_beams": 2, "temperature": 0.5}, "temperature"),
        ({"num_beams": 2, "n": 4}, "n"),
        ({"num_beams": 2, "stop": "x"}, "stop"),
        ({"n": 2}, "n"),
        ({"n": 9, "temperature": 1.0}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": 2**32}, "seed"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 33}, "max_new_tokens"),
        ({"max_new_tokens": 4, "min_new_tokens": 5}, "min_new_tokens"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 9}, "stop"),
        ({"max_new_tokens": "8"}, "max_new_tokens"),
        ({"n": True}, "n"),
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"deadline_seconds": 1e9}, "deadline_seconds"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_a_setting_out_of_range_is_named(api: ApiServer, settings: dict[str, Any], field: str) -> None:
    answer = api.post("/v1/generate", {"task": None, "input": "good", **settings})
    assert answer.status_code == 400
    assert error_of(answer)["field"] == field
    if "deadline_seconds" not in settings and "temprature" not in settings:
        item = {"task": None, "input": "good", **settings}
        answer = api.post("/v1/generate", {"requests": [{"task": None, "input": "x"}, item]})
        assert answer.status_code == 400
        assert error_of(answer)["field"] == f"requests.1.{field}"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input": "x"}, "task"),
        ({"task": None}, "input"),
        ({"task": None, "input": "x", "inputs": ["y"]}, "input"),
        ({"task": None, "inputs": []}, "inputs"),
        ({"task": None, "input": "x", "requests": [{"task": None, "input": "x"}]}, "requests"),
        ({"task": None, "input": 3}, "input"),
        ({"task": None, "inputs": ["x", None]}, "inputs.1"),
        ({"task": None, "input": {"text": "x"}}, "input"),
        ({"task": None, "input": {}}, "input"),
        ({"task": 3, "input": "x"}, "task"),
        ({"task": "a/b/c", "input": "x"}, "task"),
        ({"requests": [{"input": "x"}]}, "requests.0.task"),
        ({"requests": [{"task": None, "input": "x", "stream": True}]}, "requests.0.stream"),
        ([], "body"),
        ("text", "body"),
    ],
)
def test_a_malformed_body_is_a_400_that_names_the_field(api: ApiServer, body: Any, field: str) -> None:
    answer = api.post("/v1/generate", body)
    assert answer.status_code == 400, answer.text
    assert error_of(answer)["field"] == field


def test_wrong_template_fields_are_named(api: ApiServer) -> None:
    api.push("pair", template="{a} {b}")
    for value, field in [
        ({"a": "x"}, "input.b"),
        ({"a": "x", "b": "y", "c": "z"}, "input.c"),
        ("x", "input"),
    ]:
        answer = api.post("/v1/generate", {"task": "pair", "input": value})
        assert answer.status_code == 400
        assert error_of(answer)["field"] == field


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("absent", "unknown_task"),
        ("known@9", "unknown_version"),
        ("known@canary", "unknown_alias"),
        ("other/known", "unknown_task"),
    ],
)
def test_what_does_not_exist_is_a_404_and_never_the_base_model(
    api: ApiServer, reference: str, code: str
) -> None:
    api.push("known")
    answer = api.post("/v1/generate", {"task": reference, "input": "good"})
    assert answer.status_code == 404
    assert error_of(answer)["code"] == code


def test_a_version_of_another_base_is_refused(api: ApiServer) -> None:
    api.push("elsewhere")
    values, version = api.store.values, api.store.resolve("elsewhere", tenant="default")
    from dataclasses import replace

    other = replace(version.manifest, base_fingerprint="0" * 64)
    api.store.publish("default", "foreign", values(version.manifest.digest), other)
    answer = api.post("/v1/generate", {"task": "foreign", "input": "good"})
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "base_mismatch"
