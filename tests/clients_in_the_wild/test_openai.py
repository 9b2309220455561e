"""The whole story in both majors of OpenAI's client, and their manners, before the base that ships."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients_in_the_wild.asking import asked, url_of
from tests.end_to_end.served import Served
from tests.places import ROOT

pytestmark = pytest.mark.usefixtures("compiled_quickly")
LABELS = {"card", "transfer", "cash"}


@pytest.fixture(params=["openai_3", "openai_2"])
def major(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A major of the client, and the Python that has it."""
    return request.param, request.getfixturevalue(request.param)


def conversations() -> str:
    """The rows of the documentation's example as OpenAI's fine-tuning takes them."""
    with (ROOT / "docs" / "examples" / "tickets.tsv").open() as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file, delimiter="\t")]
    said = (
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]}
        for text, label in rows
    )
    return "".join(json.dumps(each) + "\n" for each in said)


def test_the_whole_story(
    major: tuple[str, Path], shipped: Served, key_of: Callable[..., str], tmp_path: Path
) -> None:
    name, python = major
    rows = tmp_path / "tickets.jsonl"
    rows.write_text(conversations())
    suffix = f"tickets-{name[-1]}"
    key = key_of(f"acme-{name[-1]}")  # a conflict itself where another test has made the tenant
    conflicts = shipped.metric("chorus_http_request_seconds_count", status="409")
    said = asked(python, "openai_story.py", url_of(shipped), key, str(rows), suffix)
    assert said["openai"].startswith(f"{name[-1]}.")
    assert said["file"] == ["file", rows.stat().st_size, "tickets.jsonl", "fine-tune", "processed"]
    assert said["files"] and said["content"] == rows.read_text()
    tuned(said, suffix)
    answered(said)
    batched(said)
    assert said["lost"] == ["files", "jobs", "batches"]
    assert said["keyed"] == [1, False] and said["reused"] == "idempotency_key_reused"
    assert said["over"] == "job_over"
    assert shipped.metric("chorus_http_request_seconds_count", status="409") == conflicts + 1
    assert said["deleted"] == [True, True]
    assert [code for code, _ in said["gone"]] == ["unknown_task", "unknown_file"]


def tuned(said: dict[str, Any], suffix: str) -> None:
    """What the job and its events say."""
    assert said["created"] == ["fine_tuning.job", "chorus-base", True, 1, {"for": "tickets"}]
    job = said["job"]
    assert job["status"] == "succeeded" and job["error"] is None, job
    assert job["model"] == f"{suffix}@1" and job["listed"] == [job["id"]]
    assert job["trained_tokens"] > 0 and job["times"][0] <= job["times"][1]
    assert said["event_ids"] and {"message", "metrics"} >= {kind for kind, *_ in said["events"]}
    assert any(data and data.get("train_loss") for kind, _, _, data in said["events"] if kind == "metrics")
    assert all(step > 0 and mine for _, step, mine in said["checkpoints"])
    assert said["known"] == [job["model"], "model", True, True]


def answered(said: dict[str, Any]) -> None:
    """Every way of asking gives what the server's own routes give."""
    native, other = said["generated"]["results"]
    ranked = said["classified"]["results"][0]
    usage = native["usage"]
    used = {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["input_tokens"] + usage["output_tokens"],
    }
    logprobs = native["choices"][0]["logprobs"]
    completion, chat = said["completion"], said["chat"]
    assert native["text"] in LABELS
    assert {completion["text"], chat["text"], said["response"]["text"]} == {native["text"]}
    assert completion["finish_reason"] == chat["finish_reason"] == native["finish_reason"] == "stop"
    assert completion["token_logprobs"] == chat["token_logprobs"] == logprobs["token_logprobs"]
    assert "".join(chat["bytes"]) == native["text"] and chat["tops"] == [2] * len(chat["bytes"])
    assert "".join(completion["tokens"]) == native["text"] and completion["text_offset"][0] == 0
    assert completion["usage"].items() >= used.items() and chat["usage"].items() >= used.items()
    assert completion["request_id"].startswith("req_")
    assert said["two"] == [[0, native["text"]], [1, other["text"]]]
    for stream in (said["completion_stream"], said["chat_stream"]):
        assert stream["text"] == native["text"] and stream["finish_reason"] == "stop"
        assert stream["usage"].items() >= used.items()
    assert said["completion_stream"]["ids"] == 1
    assert said["chat_stream"]["role"] == "assistant" and said["chat_stream"]["last"] == []
    assert said["chat_helper"] == native["text"]
    assert said["response"]["status"] == "completed"
    assert said["response"]["usage"] == [usage["input_tokens"], usage["output_tokens"]]
    assert said["parsed"] == said["typed"] == ranked["label"]
    assert said["called"] == [
        "tool_calls",
        None,
        [["function", "Ticket", {"about": ranked["label"]}]],
    ]


def batched(said: dict[str, Any]) -> None:
    """Two lines answered as they are alone, one refused."""
    batch = said["batch"]
    assert batch["status"] == "completed" and batch["listed"] and batch["files"]
    assert batch["metadata"] == {"for": "tickets"}
    assert batch["counts"] == {"completed": 2, "failed": 1, "total": 3}
    assert [line["custom_id"] for line in batch["output"]] == ["line-0", "line-1"]
    for line in batch["output"]:
        assert line["error"] is None and line["response"]["status_code"] == 200
        assert line["response"]["body"]["choices"][0]["message"]["content"] == said["chat"]["text"]
    (wrong,) = batch["errors"]
    assert wrong["custom_id"] == "line-2" and wrong["response"]["status_code"] == 404
    assert wrong["response"]["body"]["error"]["param"] == "model"


def test_manners(major: tuple[str, Path], shipped: Served, key_of: Callable[..., str]) -> None:
    name, python = major
    acme, birch = key_of(f"acme-{name[-1]}"), key_of(f"birch-{name[-1]}")
    narrow = key_of(f"acme-{name[-1]}", in_flight={"requests": 1}, per_minute={"requests": 900})
    left = shipped.metric("chorus_requests_total", outcome="cancelled")
    said = asked(python, "openai_manners.py", f"{url_of(shipped)}/openai/v1", acme, birch, narrow)
    refused(said)
    assert len(set(said["neutral"])) == 1
    assert all(each.startswith("req_") for each in said["request_ids"]) and said["raw"][0]
    assert said["foreign_list"] == []
    for each in said["foreign"]:  # as one that nobody has
        assert each["code"] == said["absent"]["code"] == "unknown_file"
    assert {each["class"] for each in said["foreign"][:3]} == {"NotFoundError"}
    assert set(said["at_once"]) == {said["alone"]} == {said["read"]}
    assert "RateLimitError" in said["impatient"] and said["alone"] in said["impatient"]
    assert 0 < int(said["remaining"]) <= 900
    assert said["late"] == ["deadline_exceeded", "timeout_error"]
    assert all(said["alone"].startswith(each) and each != said["alone"] for each in said["left"])
    pause = threading.Event()
    while shipped.metric("chorus_permits"):
        pause.wait(0.02)
    assert 1 <= shipped.metric("chorus_requests_total", outcome="cancelled") - left <= len(said["left"])


def test_control_the_strict_client_finds_a_fault(
    major: tuple[str, Path], shipped: Served, key_of: Callable[..., str]
) -> None:
    """The server's own list of files has other fields: the client that passes OpenAI's would not pass any."""
    name, python = major
    said = asked(python, "openai_control.py", f"{url_of(shipped)}/v1", key_of(f"acme-{name[-1]}"))
    assert said == {"found": True}


def refused(said: dict[str, Any]) -> None:
    """Each refusal is the class, the parameter and the code that programs look at."""
    classes = {
        "wrong_key": ("AuthenticationError", "authentication_error", None, "unauthenticated"),
        "no_model": ("NotFoundError", "not_found_error", "model", "unknown_task"),
        "no_model_completion": ("NotFoundError", "not_found_error", "model", "unknown_task"),
        "no_route": ("NotFoundError", "not_found_error", None, "not_found"),
        "no_messages": ("BadRequestError", "invalid_request_error", "messages", "invalid_input"),
        "token_ids": ("BadRequestError", "invalid_request_error", "prompt", "invalid_input"),
        "embeddings": ("BadRequestError", "invalid_request_error", None, "invalid_input"),
        "best_of": ("BadRequestError", "invalid_request_error", "best_of", "invalid_input"),
        "audio": ("BadRequestError", "invalid_request_error", "modalities", "invalid_input"),
    }
    names = ("class", "type", "param", "code")
    assert {what: tuple(said[what][name] for name in names) for what in classes} == classes
    assert all(said[what]["message"] and said[what]["request_id"] for what in classes)
