"""`/v1/evaluations`: documents validated whole, every kind of subject, rows by number, and what is found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from chorus import AsyncClient, Client, Evaluation, NotFoundError
from chorus_server.api.evaluation.rows import choose_examples
from chorus_server.api.schemas.documents.evaluation import EvaluationDocument
from chorus_server.jobs_wiring import start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.quality.metrics import measure
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal, Scope
from chorus_server.tuning.data.examples import TextRow
from chorus_server.tuning.data.normalizers import pad_punctuation
from prompts_store.testing import example_calibration
from tests.server.api.api_harness import ApiServer, error_of, eventually

BINARY = {"content-type": "application/octet-stream"}
LABELS = ["no", "yes"]
MEANT = {"true": "yes", "false": "no"}
TEXTS = ["good film", "bad movie", "a funny movie", "waste of two hours", "moving", "the sky is warm"] * 15
ROWS = [{"text": f"{text} {n % 7}", "label": LABELS[n % 2]} for n, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    """A server with two tasks and an ensemble of them, that takes evaluations."""
    with ApiServer(tmp_path_factory.mktemp("evaluations"), vocabulary) as server:
        server.push("first", labels=LABELS, template="review: {text}")
        server.push("second", seed=1, labels=LABELS)
        server.push("other", seed=2, labels=["a", "b"])
        server.push("free", seed=3)
        made = server.post("/v1/ensembles/panel/versions", {"tasks": ["first", "second"]})
        assert made.status_code == 201, made.text
        pack(server, {"good": {"task": "first", "values": MEANT}, "kind": {"task": "other"}})
        start_engine_jobs(server.services)
        yield server
        assert server.engine.wait_idle(300)


def pack(api: ApiServer, questions: dict[str, Any], name: str = "desk") -> None:
    made = api.post(f"/v1/packs/{name}/versions", {"questions": questions})
    assert made.status_code == 201, made.text


def upload(api: ApiServer, rows: list[dict[str, Any]] | bytes, name: str = "rows.jsonl") -> str:
    content = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
    answer = api.http.post("/v1/files", params={"name": name}, content=content, headers=BINARY)
    found: str = answer.json()["id"]
    return found


@pytest.fixture(scope="module")
def file(api: ApiServer) -> str:
    return upload(api, ROWS)


def start(api: ApiServer, file: str, *subjects: dict[str, Any], **fields: Any) -> httpx2.Response:
    return api.post("/v1/evaluations", {"subjects": list(subjects), "file": file, **fields})


def evaluated(api: ApiServer, file: str, *subjects: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The evaluation once it is over."""
    answer = start(api, file, *subjects, **fields)
    assert answer.status_code == 201, answer.text
    path = f"/v1/evaluations/{answer.json()['id']}"
    eventually(lambda: api.http.get(path).json()["finished_at"] is not None)
    found: dict[str, Any] = api.http.get(path).json()
    return found


def succeeded(api: ApiServer, file: str, *subjects: dict[str, Any], **fields: Any) -> dict[str, Any]:
    found = evaluated(api, file, *subjects, **fields)
    assert found["status"] == "succeeded", found["error"]
    return found


def predictions(api: ApiServer, found: dict[str, Any]) -> list[dict[str, Any]]:
    answer = api.http.get(f"/v1/files/{found['result']['predictions']}/content")
    assert answer.status_code == 200 and int(answer.headers["content-length"]) == len(answer.content)
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_prompt_is_evaluated_as_classify_answers(api: ApiServer, file: str) -> None:
    found = succeeded(api, file, {"task": "first"})
    spec = found["spec"]
    assert spec["subjects"] == [{"task": "default/first@1"}], "pinned"
    assert spec["labels"] == LABELS and spec["answer_by"] == "ranked"
    assert spec["metrics"] == ["accuracy", "f1_macro", "matthews"] and "key" not in spec
    lines = predictions(api, found)
    answer = api.post("/v1/classify", {"task": "first", "inputs": [row["text"] for row in ROWS]}).json()
    said = [each["label"] for each in answer["results"]]
    assert [line["subjects"][0]["said"] for line in lines] == said
    assert [line["row"] for line in lines] == list(range(1, len(ROWS) + 1))
    for line, each in zip(lines, answer["results"], strict=True):
        ours = line["subjects"][0]
        assert ours["confidence"] == pytest.approx(max(each["probabilities"].values()), abs=1e-4)
        assert ours["log_probabilities"] == pytest.approx(list(each["log_probabilities"].values()), abs=1e-4)
    result = found["result"]["subjects"][0]
    truth = [(row["label"],) for row in ROWS]
    assert result["metrics"] == measure(["accuracy", "f1_macro", "matthews"], said, truth, LABELS)
    assert result["legal"] == 1.0 and sum(map(sum, result["confusion"]["counts"])) == len(ROWS)
    assert found["result"]["rows"] == len(ROWS) and found["result"]["comparisons"] == []


def test_several_subjects_are_compared_with_the_first(api: ApiServer, file: str) -> None:
    subjects = (
        {"task": "first"},
        {"task": "second"},
        {"ensemble": "panel"},
        {"base": {"instruction": "is it good"}},
    )
    found = succeeded(api, file, *subjects, seed=5)
    result = found["result"]
    assert [each["name"] for each in result["subjects"]] == [
        "default/first@1", "default/second@1", "default/panel@1", "base",
    ]  # fmt: skip
    assert [(each["first"], each["second"]) for each in result["comparisons"]] == [(0, 1), (0, 2), (0, 3)]
    for each in result["comparisons"]:
        accuracy = each["metrics"]["accuracy"]
        ours = result["subjects"][each["second"]]["metrics"]["accuracy"]
        assert accuracy["difference"] == pytest.approx(ours - result["subjects"][0]["metrics"]["accuracy"])
        assert accuracy["low"] <= accuracy["difference"] <= accuracy["high"] and each["resamples"] == 10_000
    votes = api.post("/v1/ensemble", {"ensemble": "panel", "inputs": [row["text"] for row in ROWS]}).json()
    lines = predictions(api, found)
    assert [line["subjects"][2]["said"] for line in lines] == [each["answer"] for each in votes["results"]]
    assert predictions(api, succeeded(api, file, *subjects, seed=5)) == lines, "the same again"


def test_greedy_answers_may_be_none_of_the_labels(api: ApiServer, file: str) -> None:
    found = succeeded(api, file, {"task": "first"}, answer_by="greedy", max_new_tokens=3)
    texts = [row["text"] for row in ROWS]
    wanted = api.post("/v1/generate", {"task": "first", "inputs": texts, "max_new_tokens": 3}).json()[
        "results"
    ]
    lines = predictions(api, found)
    assert [line["subjects"][0]["said"] for line in lines] == [each["text"] for each in wanted]
    assert "log_probabilities" not in lines[0]["subjects"][0]
    result = found["result"]["subjects"][0]
    assert result["legal"] < 1 and any(row[-1] for row in result["confusion"]["counts"])


def test_calibrated_answers_are_those_that_requests_get(api: ApiServer, file: str) -> None:
    # Far enough from the log probabilities to turn labels.
    for seed, task in enumerate(("warm", "cool")):
        api.push(task, seed=5 + seed, labels=LABELS)
        for temperature in (9.0, 3.0):
            fitted = example_calibration(temperature, prior=(2.0, -2.0))
            api.store.calibrate("default", task, 1, fitted)
    made = api.post("/v1/ensembles/sure/versions", {"tasks": ["warm", "cool"]})
    assert made.status_code == 201, made.text
    texts = [row["text"] for row in ROWS]
    one = {"ensemble": "sure", "inputs": texts[:1]}

    def numbers() -> list[int | None]:
        members = api.post("/v1/ensemble", one).json()["results"][0]["members"]
        return [each["calibration"] for each in members]

    eventually(lambda: numbers() == [2, 2])
    subjects = ({"task": "warm"}, {"ensemble": "sure"})
    found = succeeded(api, file, *subjects, answer_by="calibrated")
    assert [each["answer_by"] for each in found["result"]["subjects"]] == ["calibrated"] * 2
    lines = predictions(api, found)
    alone = api.post("/v1/classify", {"task": "warm", "inputs": texts}).json()["results"]
    votes = api.post("/v1/ensemble", {"ensemble": "sure", "inputs": texts}).json()["results"]
    raw = predictions(api, succeeded(api, file, *subjects, answer_by="ranked"))
    for line, classified, vote, plain in zip(lines, alone, votes, raw, strict=True):
        mine, voted = line["subjects"]
        assert mine["said"] == classified["label"] and voted["said"] == vote["answer"]
        assert mine["confidence"] == pytest.approx(max(classified["probabilities"].values()), abs=1e-4)
        assert voted["confidence"] == pytest.approx(vote["probabilities"][vote["answer"]], abs=1e-4)
        assert mine["log_probabilities"] == plain["subjects"][0]["log_probabilities"]
        best = max(range(2), key=mine["log_probabilities"].__getitem__)
        assert plain["subjects"][0]["said"] == LABELS[best], "ranked is by log probabilities"
        assert plain["subjects"][1]["confidence"] in (0.5, 1.0), "a share of two votes"
    assert [line["subjects"][0]["said"] for line in lines] != [line["subjects"][0]["said"] for line in raw]


def test_a_calibration_that_no_longer_fits_ends_the_job(api: ApiServer, file: str) -> None:
    api.push("lost", seed=7, labels=LABELS)
    spec = {
        "subjects": [{"task": "default/lost@1"}],
        "file": file,
        "labels": LABELS,
        "answer_by": "calibrated",
    }
    document = EvaluationDocument.read(spec)
    document = document.completed(tuple(LABELS)).model_copy(
        update={"base_fingerprint": api.services.base().fingerprint}
    )
    job = api.store.create_job(
        "default", "evaluation", {**document.to_json(), "key": ""}, files={"file": file}
    )
    path = f"/v1/evaluations/{job.id}"
    eventually(lambda: api.http.get(path).json()["finished_at"] is not None)
    error = api.http.get(path).json()["error"]
    assert error["field"] == "subjects.0.task" and "default/lost@1 has no calibration" in error["message"]


def test_a_task_without_labels_is_measured_as_text(api: ApiServer, file: str) -> None:
    found = succeeded(api, file, {"task": "free"}, max_new_tokens=2)
    assert found["spec"]["answer_by"] == "greedy" and found["spec"]["labels"] == []
    assert found["spec"]["metrics"] == ["exact_match", "squad_em", "squad_f1"]
    assert found["result"]["subjects"][0]["legal"] is None


def test_the_base_is_shown_examples_from_each_label_in_turn(api: ApiServer, file: str) -> None:
    shown = [{"text": f"film {n}", "label": LABELS[n >= 6]} for n in range(8)]
    examples = upload(api, shown)
    base = {"base": {"instruction": "good or bad", "few_shot": 2, "template": "film: {text}"}}
    found = succeeded(api, file, base, labels=LABELS, examples=examples, truncate=True)
    assert found["spec"]["subjects"] == [base]
    # What was asked, from the rows that the seed chose.
    rows = [TextRow(n + 1, f"film: {row['text']}", (row["label"],)) for n, row in enumerate(shown)]
    chosen = choose_examples(rows, LABELS, 2, 0)
    assert {row.answers[0] for row in chosen} == set(LABELS)
    before = "good or bad\n\n" + "".join(f"{row.text} {row.answers[0]}\n\n" for row in chosen)
    inputs = [f"{before}film: {row['text']}" for row in ROWS]
    body = {"task": None, "inputs": inputs, "labels": LABELS, "truncate": True}
    wanted = [each["label"] for each in api.post("/v1/classify", body).json()["results"]]
    assert [line["subjects"][0]["said"] for line in predictions(api, found)] == wanted


def test_the_base_reads_rows_and_examples_as_a_prompts_normaliser_writes_them(api: ApiServer) -> None:
    rows = [{"text": f'"{text}," he said.', "label": LABELS[n % 2]} for n, text in enumerate(TEXTS[:4])]
    examples = [{"text": "a.b", "label": "no"}, {"text": "(c)", "label": "yes"}]
    sent = {"labels": LABELS, "examples": upload(api, examples)}
    template, padded = "say {text} now", {"normalizer": "t5_punctuation"}
    subjects = ({"base": {"template": template, "few_shot": 2, **more}} for more in (padded, {}))
    found = succeeded(api, upload(api, rows), *subjects, **sent)
    assert found["spec"]["subjects"][0]["base"]["normalizer"] == "t5_punctuation"
    for place, written in enumerate((pad_punctuation, str)):

        def text(row: dict[str, str], written: Callable[[str], str] = written) -> str:
            # Where a field meets the template's spaces, one of them stays.
            return " ".join(f"say {written(row['text'])} now".split())

        shown = [TextRow(n + 1, text(row), (row["label"],)) for n, row in enumerate(examples)]
        chosen = choose_examples(shown, LABELS, 2, 0)
        before = "".join(f"{row.text} {row.answers[0]}\n\n" for row in chosen)
        body = {"task": None, "inputs": [before + text(row) for row in rows], "labels": LABELS}
        wanted = api.post("/v1/classify", body).json()["results"]
        for line, each in zip(predictions(api, found), wanted, strict=True):
            ours = line["subjects"][place]["log_probabilities"]
            assert ours == pytest.approx(list(each["log_probabilities"].values()), abs=1e-3)


def test_baselines_stand_beside_a_prompt(api: ApiServer, file: str) -> None:
    train = upload(api, [{"text": f"film {n}", "label": LABELS[n % 3 > 0]} for n in range(9)])
    plain = {"instruction": "good or bad"}
    subjects = (
        {"majority": True}, {"task": "first"}, {"base": plain}, {"base": {**plain, "calibrated": True}},
        {"base": {**plain, "few_shot": 2}},
    )  # fmt: skip
    found = succeeded(api, file, *subjects, examples=train)
    assert found["spec"]["labels"] == LABELS, "the prompt's"
    results = found["result"]["subjects"]
    assert [each["name"] for each in results] == [
        "majority", "default/first@1", "base", "base:calibrated", "base:few-shot",
    ]  # fmt: skip
    lines = predictions(api, found)
    assert {json.dumps(line["subjects"][0]) for line in lines} == {'{"said": "yes", "confidence": 0.6667}'}
    assert results[0]["metrics"]["accuracy"] == sum(row["label"] == "yes" for row in ROWS) / len(ROWS)
    raw, ours = (np.array([line["subjects"][n]["log_probabilities"] for line in lines]) for n in (2, 3))
    np.testing.assert_allclose(ours, raw - raw.mean(axis=0), atol=2e-4)
    said = [line["subjects"][3]["said"] for line in lines]
    assert said == [LABELS[row.argmax()] for row in ours]
    truth = [(row["label"],) for row in ROWS]
    assert results[3]["metrics"] == measure(["accuracy", "f1_macro", "matthews"], said, truth, LABELS)
    odd = upload(api, [{"text": "film", "label": "maybe"}])
    failed = evaluated(api, file, *subjects[:2], examples=odd)
    assert failed["error"]["field"] == "examples" and "row 1" in failed["error"]["message"]


def test_rows_give_metrics_their_columns(api: ApiServer) -> None:
    rows = [{**row, "question": n // 3} for n, row in enumerate(ROWS)]
    file, fields = upload(api, rows), {"metrics": ["accuracy", "multirc_em"]}
    columns = {"metric_columns": {"group": "question"}}
    found = succeeded(api, file, {"task": "first"}, {"task": "second"}, **fields, **columns)
    said = [line["subjects"][0]["said"] for line in predictions(api, found)]
    groups = {"group": [str(row["question"]) for row in rows]}
    truth = [(row["label"],) for row in rows]
    expected = measure(fields["metrics"], said, truth, LABELS, groups)
    assert found["result"]["subjects"][0]["metrics"] == expected
    assert set(found["result"]["comparisons"][0]["metrics"]) == {*fields["metrics"], "mean"}
    refused = start(api, file, {"task": "first"}, **fields)
    assert refused.status_code == 400 and error_of(refused)["field"] == "metrics"


BAD_ROWS: dict[str, tuple[bytes, str, str]] = {
    "no such column": (b'{"text": "x", "label": "no"}\n{"label": "no"}\n', "row 2", "invalid_data"),
    "an answer that is no label": (b'{"text": "x", "label": "maybe"}\n', "row 1", "unknown_label"),
    "not JSON": (b'{"text": "x", "label": "no"}\n\n{"text"\n', "row 3", "invalid_data"),
    "an empty text": (b'{"text": " ", "label": "no"}\n', "row 1", "invalid_data"),
    "no rows": (b"\n", "no rows", "empty_split"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named_by_its_number(api: ApiServer, name: str) -> None:
    content, place, code = BAD_ROWS[name]
    found = evaluated(api, upload(api, content), {"task": "first"})
    assert found["status"] == "failed" and found["result"] == {}
    assert place in found["error"]["message"]
    assert (found["error"]["code"], found["error"]["field"]) == (code, "file")


def test_a_text_that_is_too_long_is_cut_or_named(api: ApiServer) -> None:
    rows = [{"text": "good", "label": "no"}, {"text": "good film " * 400, "label": "yes"}]
    file = upload(api, rows)
    cut = succeeded(api, file, {"task": "first"})
    assert cut["result"]["subjects"][0]["truncated"] == 1
    refused = evaluated(api, file, {"task": "first"}, truncate=False)
    assert refused["status"] == "failed" and refused["error"]["code"] == "input_too_long"
    assert refused["error"]["message"].startswith("row 2: ") and refused["error"]["field"] == "file"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no subjects": ({"subjects": []}, "subjects"),
    "two things at once": ({"subjects": [{"task": "first", "ensemble": "panel"}]}, "subjects.0"),
    "an unknown task": ({"subjects": [{"task": "first"}, {"task": "nobody"}]}, "subjects.1.task"),
    "an unknown ensemble": ({"subjects": [{"ensemble": "first"}]}, "subjects.0.ensemble"),
    "no file": ({"file": None}, "file"),
    "an unknown pack": ({"subjects": [{"pack": "first", "question": "good"}]}, "subjects.0.pack"),
    "an unknown version": ({"subjects": [{"pack": "desk@9", "question": "good"}]}, "subjects.0.pack"),
    "an unknown question": ({"subjects": [{"pack": "desk", "question": "x"}]}, "subjects.0.question"),
    "a pack without a question": ({"subjects": [{"pack": "desk"}]}, "subjects.0.question"),
    "a question without a pack": ({"subjects": [{"task": "first", "question": "x"}]}, "subjects.0.question"),
    "a pack and a task": (
        {"subjects": [{"task": "first", "pack": "desk", "question": "good"}]},
        "subjects.0",
    ),
    "labels in place of values": (
        {"subjects": [{"pack": "desk", "question": "good"}], "labels": ["true", "maybe"]},
        "labels",
    ),
    "two values of one label": (
        {"subjects": [{"pack": "desk", "question": "good"}], "labels": ["true", "yes"]},
        "labels",
    ),
    "a pack that is not calibrated": (
        {"subjects": [{"pack": "desk", "question": "good"}], "answer_by": "calibrated"},
        "subjects.0.pack",
    ),
    "a pack and a task of other labels": (
        {"subjects": [{"pack": "desk", "question": "good"}, {"task": "first"}]},
        "labels",
    ),
    "an unknown file": ({"file": "file-" + "0" * 24}, "file"),
    "few-shot without examples": ({"subjects": [{"base": {"few_shot": 2}}]}, "subjects.0.base.few_shot"),
    "majority without examples": (
        {"subjects": [{"task": "first"}, {"majority": True}]},
        "subjects.1.majority",
    ),
    "majority alone": ({"subjects": [{"majority": True}], "examples": "file-" + "0" * 24}, "subjects"),
    "no majority": ({"subjects": [{"majority": False}]}, "subjects.0.majority"),
    "a base calibrated on greedy texts": (
        {"subjects": [{"base": {"calibrated": True}}], "labels": LABELS, "answer_by": "greedy"},
        "subjects.0.base.calibrated",
    ),
    "a column for no metric": ({"metric_columns": {"groups": "x"}}, "metric_columns"),
    "examples for nobody": ({"examples": "file-" + "0" * 24}, "examples"),
    "ranked without labels": ({"subjects": [{"task": "free"}], "answer_by": "ranked"}, "answer_by"),
    "calibrated without labels": ({"subjects": [{"task": "free"}], "answer_by": "calibrated"}, "answer_by"),
    "a base that is calibrated": (
        {"subjects": [{"base": {}}], "labels": LABELS, "answer_by": "calibrated"},
        "subjects.0.base",
    ),
    "one that is not calibrated": ({"answer_by": "calibrated"}, "subjects.0.task"),
    "members that are not": (
        {"subjects": [{"ensemble": "panel"}], "answer_by": "calibrated"},
        "subjects.0.ensemble",
    ),
    "labels that differ": ({"subjects": [{"task": "first"}, {"task": "other"}]}, "labels"),
    "one label": ({"labels": ["no"]}, "labels"),
    "a metric for two labels": ({"labels": ["a", "b", "c"], "metrics": ["f1_binary"]}, "metrics"),
    "an unknown metric": ({"metrics": ["bleu"]}, "metrics"),
    "tokens for ranked answers": ({"max_new_tokens": 3}, "max_new_tokens"),
    "another base": ({"base_fingerprint": "other"}, "base_fingerprint"),
    "a bad template": (
        {"subjects": [{"base": {"template": "x"}}], "labels": LABELS},
        "subjects.0.base.template",
    ),
    "an unknown normaliser": (
        {"subjects": [{"base": {"normalizer": "lower"}}], "labels": LABELS},
        "subjects.0.base.normalizer",
    ),
    "a normaliser of another field": (
        {"subjects": [{"base": {"normalizer": "t5_record"}}], "labels": LABELS},
        "subjects.0.base.normalizer",
    ),
    "an unknown field": ({"subject": "first"}, "subject"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_document_is_refused_with_its_field(api: ApiServer, file: str, name: str) -> None:
    changes, field = REFUSED[name]
    body = {"subjects": [{"task": "first"}], "file": file} | changes
    answer = api.post("/v1/evaluations", {key: value for key, value in body.items() if value is not None})
    assert answer.status_code in (400, 404), answer.text
    assert error_of(answer)["field"] == field


def test_evaluations_are_listed_followed_cancelled_and_resumed(api: ApiServer, file: str) -> None:
    found = succeeded(api, file, {"task": "first"})
    listed = api.http.get("/v1/evaluations", params={"status": "succeeded"}).json()["evaluations"]
    assert found["id"] in [each["id"] for each in listed] and "result" not in listed[0]
    assert listed[0]["subjects"][0]
    events = api.http.get(f"/v1/evaluations/{found['id']}/events", params={"follow": "false"}).json()[
        "events"
    ]
    assert [each["seq"] for each in events] == list(range(1, len(events) + 1))
    assert "evaluated" in [each["kind"] for each in events]
    followed = api.http.get(f"/v1/evaluations/{found['id']}/events").text
    assert followed.rstrip().split("\n\n")[-1].startswith("event: done")
    over = api.http.post(f"/v1/evaluations/{found['id']}/cancel")
    assert over.status_code == 409 and error_of(over)["code"] == "job_over"
    bad = evaluated(api, upload(api, b"{}\n"), {"task": "first"})
    again = api.http.post(f"/v1/evaluations/{bad['id']}/resume")
    assert again.status_code == 200 and again.json()["finished_at"] is None
    eventually(lambda: api.http.get(f"/v1/evaluations/{bad['id']}").json()["status"] == "failed")
    # A tuning job is none, and the other way round.
    assert api.http.get(f"/v1/tuning/jobs/{found['id']}").status_code == 404


def test_both_clients_evaluate(api: ApiServer) -> None:
    with Client(api.url) as client:
        job = client.evaluations.start(["first", {"ensemble": "panel"}], ROWS)
        found = client.evaluations.wait(job)
        assert found.succeeded and found.result["rows"] == len(ROWS)
        assert len(client.evaluations.predictions(found).splitlines()) == len(ROWS)
        assert found.id in [each.id for each in client.evaluations.list(status="succeeded")]
        assert client.evaluations.past_events(found)[-1].data["status"] == "succeeded"
        before = client.files.list()
        with pytest.raises(NotFoundError):
            client.evaluations.start("nobody", ROWS)
        assert client.files.list() == before, "a refused evaluation leaves no file"

    async def awaited() -> Evaluation:
        async with AsyncClient(api.url) as other:
            return await other.evaluations.wait(await other.evaluations.start("first", ROWS))

    again = asyncio.run(awaited())
    assert again.result["subjects"] == found.result["subjects"][:1]


def test_the_file_is_kept_while_it_is_read(api: ApiServer, file: str) -> None:
    job = api.store.create_job("default", "evaluation", {"base_fingerprint": "other"}, files={"file": file})
    refused = api.http.delete(f"/v1/files/{file}")
    assert refused.status_code == 409 and error_of(refused)["code"] == "file_in_use"
    api.store.cancel_job("default", job.id)


def test_keys_see_what_they_may_name(tmp_path: Path, vocabulary: Vocabulary) -> None:
    everything, some, tuner = (f"canary-{name}-0123456789" for name in ("all", "some", "tuner"))
    keys = {
        everything: Principal("ours", "all"),
        some: Principal("ours", "some", tasks=("first",)),
        tuner: Principal("ours", "tuner", frozenset({Scope.TUNE, Scope.READ})),
    }
    with ApiServer(tmp_path, vocabulary, keys=KeyRing(keys, Principal("ours", "anonymous"))) as api:
        api.http.headers["authorization"] = f"Bearer {everything}"
        for task in ("first", "second"):
            api.push(task, labels=LABELS)
        file = upload(api, ROWS)
        hidden = start(api, file, {"task": "second"}).json()["id"]
        shown = start(api, file, {"task": "first"}).json()["id"]
        mine = {"authorization": f"Bearer {some}"}
        assert api.http.get(f"/v1/evaluations/{hidden}", headers=mine).status_code == 404
        assert api.http.post(f"/v1/evaluations/{hidden}/cancel", headers=mine).status_code == 404
        assert api.http.get(f"/v1/evaluations/{shown}", headers=mine).status_code == 200
        listed = api.http.get("/v1/evaluations", headers=mine).json()["evaluations"]
        assert [each["id"] for each in listed] == [shown]
        body = {"subjects": [{"task": "second"}], "file": file}
        refused = api.http.post("/v1/evaluations", json=body, headers=mine)
        assert refused.status_code == 404 and error_of(refused)["field"] == "subjects.0.task"
        # A key's patterns are of the pack's name.
        pack(api, {"good": {"task": "second"}})
        body["subjects"] = [{"pack": "desk", "question": "good"}]
        of_pack = api.http.post("/v1/evaluations", json=body).json()["id"]
        assert api.http.get(f"/v1/evaluations/{of_pack}", headers=mine).status_code == 404
        refused = api.http.post("/v1/evaluations", json=body, headers=mine)
        assert refused.status_code == 404 and error_of(refused)["field"] == "subjects.0.pack"
        assert error_of(refused)["code"] == "unknown_pack"
        body["subjects"] = [{"task": "first"}]
        only = api.http.post("/v1/evaluations", json=body, headers={"authorization": f"Bearer {tuner}"})
        assert only.status_code == 403 and "infer" in error_of(only)["message"]
