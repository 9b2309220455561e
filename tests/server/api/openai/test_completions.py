"""Completions say what `/v1/generate` says."""

from __future__ import annotations

from typing import Any

import pytest

from chorus_server.api.schemas.openai.completions import CompletionsAnswer
from tests.server.api.api_harness import ApiServer
from tests.server.api.openai.openai_harness import TEXT, asked, native, refused, streamed

ASKED: dict[str, Any] = {"model": "mood", "prompt": TEXT}
SAMPLED = {"temperature": 1.5, "seed": 7, "max_tokens": 6}
NATIVE = {"temperature": 1.5, "seed": 7, "max_new_tokens": 6}


def test_an_answer_is_the_native_one(stocked: ApiServer) -> None:
    said = native(stocked, task="mood", input=TEXT)
    answer = asked(stocked, "completions", ASKED)
    CompletionsAnswer.model_validate(answer)
    assert answer["id"].startswith("cmpl-req_") and answer["created"] > 1_700_000_000
    assert (answer["model"], answer["system_fingerprint"]) == ("mood@1", "fp_0123456789abcdef")
    assert answer["choices"] == [
        {"index": 0, "text": said["text"], "logprobs": None, "finish_reason": said["finish_reason"]}
    ]
    used = said["usage"]
    assert answer["usage"] == {
        "prompt_tokens": used["input_tokens"],
        "completion_tokens": used["output_tokens"],
        "total_tokens": used["input_tokens"] + used["output_tokens"],
    }


def test_several_prompts_are_answered_n_times_each(stocked: ApiServer) -> None:
    prompts = [TEXT, "rain"]
    answer = asked(stocked, "completions", {**ASKED, "prompt": prompts, "n": 2, **SAMPLED})
    said = [native(stocked, task="mood", input=text, n=2, **NATIVE) for text in prompts]
    texts = [choice["text"] for each in said for choice in each["choices"]]
    assert [(each["index"], each["text"]) for each in answer["choices"]] == list(enumerate(texts))
    assert answer["usage"]["completion_tokens"] == sum(each["usage"]["output_tokens"] for each in said)


def test_the_best_of_several_by_mean_log_probability(stocked: ApiServer) -> None:
    answer = asked(stocked, "completions", {**ASKED, "n": 2, "best_of": 4, **SAMPLED})
    said = native(stocked, task="mood", input=TEXT, n=4, logprobs=True, **NATIVE)
    values = [each["logprobs"]["token_logprobs"] for each in said["choices"]]
    means = [sum(each) / len(each) if each else 0.0 for each in values]
    best = sorted(range(4), key=lambda at: -means[at])[:2]
    assert [each["text"] for each in answer["choices"]] == [said["choices"][at]["text"] for at in best]
    assert answer["choices"][0]["logprobs"] is None  # they were not asked for
    assert answer["usage"]["completion_tokens"] == said["usage"]["output_tokens"]


@pytest.mark.parametrize("count", [0, 2])
def test_log_probabilities(stocked: ApiServer, count: int) -> None:
    (choice,) = asked(stocked, "completions", {**ASKED, "logprobs": count, **SAMPLED})["choices"]
    said = native(stocked, task="mood", input=TEXT, logprobs=True, top_logprobs=count, **NATIVE)
    theirs, ours = choice["logprobs"], said["choices"][0]["logprobs"]
    assert theirs["token_logprobs"] == ours["token_logprobs"]
    assert "".join(theirs["tokens"]) == choice["text"]
    for at, offset in enumerate(theirs["text_offset"]):
        assert offset == len("".join(theirs["tokens"][:at]))
    if count:
        assert [len(each) for each in theirs["top_logprobs"]] == [2] * len(theirs["tokens"])
    else:
        assert theirs["top_logprobs"] is None


def test_echo_puts_the_prompt_before_the_answer(stocked: ApiServer) -> None:
    said = native(stocked, task="mood", input=TEXT)["text"]
    (choice,) = asked(stocked, "completions", {**ASKED, "echo": True})["choices"]
    assert choice["text"] == TEXT + said
    chunks = streamed(stocked, "completions", {**ASKED, "echo": True})
    assert "".join(each["choices"][0]["text"] for each in chunks) == TEXT + said


def test_stop_texts_end_the_answer(stocked: ApiServer) -> None:
    whole = native(stocked, task="mood", input=TEXT, **NATIVE)["text"]
    stop = whole[1:3]
    answer = asked(stocked, "completions", {**ASKED, "stop": [stop, "?", "??", "???"], **SAMPLED})
    assert (
        answer["choices"][0]["text"] == native(stocked, task="mood", input=TEXT, stop=stop, **NATIVE)["text"]
    )
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("more", [{}, {"n": 2}, {"logprobs": 1}, {"num_beams": 2, "n": 2, "temperature": 0}])
def test_a_stream_joined_is_the_answer(stocked: ApiServer, more: dict[str, Any]) -> None:
    body = {**ASKED, "prompt": [TEXT, "rain"], **SAMPLED, **more}
    whole = asked(stocked, "completions", body)
    chunks = streamed(stocked, "completions", {**body, "stream_options": {"include_usage": True}})
    for chunk in chunks:
        CompletionsAnswer.model_validate(chunk)
    *rest, last = chunks
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert all(chunk["usage"] is None for chunk in rest)
    for choice in whole["choices"]:
        mine = [each for chunk in rest for each in chunk["choices"] if each["index"] == choice["index"]]
        assert "".join(each["text"] for each in mine) == choice["text"]
        assert [each["finish_reason"] for each in mine[:-1]] == [None] * (len(mine) - 1)
        assert (mine[-1]["finish_reason"], mine[-1]["logprobs"]) == (
            choice["finish_reason"],
            choice["logprobs"],
        )


def test_without_the_option_no_chunk_tells_usage(stocked: ApiServer) -> None:
    assert not any("usage" in chunk for chunk in streamed(stocked, "completions", ASKED))


def test_noise_changes_nothing(stocked: ApiServer) -> None:
    noise = {
        "suffix": "", "n": 1, "best_of": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "top_p": 1,
        "user": "u-1", "metadata": {"a": "b"}, "logit_bias": None, "stop": None, "max_tokens": None,
        "seed": None, "next_year": {"a": [1]}, "stream_options": None, "stream": False, "echo": False,
    }  # fmt: skip
    answer, plain = (asked(stocked, "completions", {**ASKED, **more}) for more in (noise, {}))
    assert answer["choices"] == plain["choices"]


def test_more_tokens_than_fit_are_as_many_as_fit(stocked: ApiServer) -> None:
    """LangChain sends 256 where nobody says a number."""
    answer = asked(stocked, "completions", {**ASKED, "max_tokens": 4096})
    assert answer["choices"][0]["text"] == native(stocked, task="mood", input=TEXT, max_new_tokens=32)["text"]


def test_a_long_seed_is_cut(stocked: ApiServer) -> None:
    texts = [
        asked(stocked, "completions", {**ASKED, **SAMPLED, "seed": seed})["choices"][0]["text"]
        for seed in (7, 7 + 2**32, 7 - 2**32)
    ]
    assert texts == [native(stocked, task="mood", input=TEXT, **NATIVE)["text"]] * 3


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"suffix": "."}, "suffix"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a", None]}, "prompt.1"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"n": 3, "best_of": 2, "temperature": 1}, "best_of"),
        ({"best_of": 2, "temperature": 1, "stream": True}, "best_of"),
        ({"n": 2}, "n"),  # greedy answers are all the same
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_new_tokens": 3}, "max_new_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logit_bias": {"1000000": 1}}, "logit_bias"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"temperature": "hot"}, "temperature"),
        ({"model": None}, "model"),
        ({"model": "pair"}, "prompt"),
        ({"model": "pair", "prompt": ["{}", "{}"]}, "prompt.0.premise"),
    ],
)
def test_what_cannot_be_followed_is_named(stocked: ApiServer, changes: dict[str, Any], param: str) -> None:
    assert refused(stocked, "completions", {**ASKED, **changes})["field"] == param


def test_token_ids_are_refused_in_words_that_help(stocked: ApiServer) -> None:
    for path, field in (("completions", "prompt"), ("embeddings", "input")):
        said = refused(stocked, path, {"model": "mood", field: [[87, 88]]})
        assert said["field"] == field and "check_embedding_ctx_length=False" in said["message"]
    said = refused(stocked, "embeddings", {"model": "mood", "input": TEXT, "encoding_format": "base64"})
    assert "no embeddings" in said["message"]


def test_fields_come_as_the_text_of_an_object(stocked: ApiServer) -> None:
    fields = {"premise": "rain falls", "hypothesis": "the sky is warm"}
    text = '{"premise": "rain falls", "hypothesis": "the sky is warm"}'
    (choice,) = asked(stocked, "completions", {"model": "pair", "prompt": text})["choices"]
    assert choice["text"] == native(stocked, task="pair", input=fields)["text"]
    said = refused(stocked, "completions", {"model": "pair", "prompt": TEXT})
    assert '{"premise": "...", "hypothesis": "..."}' in said["message"]


@pytest.mark.parametrize("model", ["mood", "mood@1", "mood@live", "default/mood@1", "base", "tiny"])
def test_models_by_every_name(stocked: ApiServer, model: str) -> None:
    task = None if model in ("base", "tiny") else model
    answer = asked(stocked, "completions", {**ASKED, "model": model})
    assert answer["model"] == ("tiny" if task is None else "mood@1")
    assert answer["choices"][0]["text"] == native(stocked, task=task, input=TEXT)["text"]


def test_one_failure_fails_all(stocked: ApiServer) -> None:
    """These answers have no room for an error of one prompt."""
    said = refused(stocked, "completions", {**ASKED, "prompt": [TEXT, "good " * 200]})
    assert (said["code"], said["field"]) == ("input_too_long", "prompt.1")
    cut = asked(stocked, "completions", {**ASKED, "prompt": [TEXT, "good " * 200], "truncate": True})
    assert len(cut["choices"]) == 2
