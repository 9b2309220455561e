"""`chorus serve` on a real pretrained T5 with real text: mixed tasks over HTTP, prompts from the store."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.served import Served
from tests.places import FIXTURES

pytestmark = pytest.mark.shared

WIDTH = 512
LADDER = {
    "shapes": "input_lengths=64,256 batch_rows=1,8 blocks=256x16x8 score_buckets=4x16",
    "prompt_rows": 1024,
}
BINARY = {"content-type": "application/octet-stream"}


def tsv(path: Path, count: int) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row for row, _ in zip(rows, range(count), strict=False)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, shared: Path, compile_cache: Path) -> Iterator[Served]:
    model, data = shared / "models" / "flan-t5-small-title", tmp_path_factory.mktemp("data")
    with Served(data, model=model, compile_cache_dir=compile_cache, **LADDER) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def embed(shared: Path) -> Any:
    """A prompt whose rows are the embeddings of a text: putting it in front is putting the text in front."""
    from safetensors.numpy import load_file

    from chorus_server.model.vocabulary import Vocabulary

    folder = shared / "models" / "flan-t5-small-title"
    vocabulary = Vocabulary.load(folder / "spiece.model")
    import ml_dtypes  # noqa: F401  (registers bfloat16 for the reader)

    tensors = load_file(folder / "model.safetensors")
    table = np.asarray(tensors["shared.weight"], np.float32)

    def make(text: str) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, table[vocabulary.encode(text)])
        return buffer.getvalue()

    return make


@pytest.fixture(scope="module")
def stocked(served: Served, embed: Any) -> Served:
    def push(task: str, content: bytes, **query: Any) -> None:
        answer = served.http.post(f"/v1/tasks/{task}/versions", content=content, headers=BINARY, params=query)
        assert answer.status_code == 201, answer.text

    push("sst2", embed("Is this movie review positive or negative?"), label=["negative", "positive"])
    push("sst2-b", embed("What is the sentiment of this sentence?"), label=["negative", "positive"])
    push("sst2-c", embed("Review sentiment, positive or negative:"), label=["negative", "positive"])
    push(
        "rte",
        embed("Does the premise entail the hypothesis? yes or no."),
        template="Premise: {premise} Hypothesis: {hypothesis}",
        label=["yes", "no"],
    )
    push(
        "news",
        embed("Is this about World, Sports, Business or Technology?"),
        settings='{"max_new_tokens": 6}',
    )
    for length in (1, 20, 100, 150):
        values = np.random.default_rng(length).uniform(-0.5, 0.5, (length, WIDTH)).astype(np.float32)
        buffer = io.BytesIO()
        np.save(buffer, values)
        push(f"random-{length}", buffer.getvalue())
    return served


def texts(shared: Path, count: int) -> list[dict[str, Any]]:
    """Requests of three tasks on real text, taking turns."""
    data = shared / "data"
    reviews = [row["sentence"] for row in tsv(data / "glue" / "SST-2" / "dev.tsv", count)]
    pairs = [
        {"premise": row["sentence1"], "hypothesis": row["sentence2"]}
        for row in tsv(data / "glue" / "RTE" / "dev.tsv", count)
    ]
    with (data / "classification" / "ag_news" / "test.csv").open(encoding="utf-8", newline="") as file:
        news = [" ".join(row[1:]) for row, _ in zip(csv.reader(file), range(count), strict=False)]
    requests: list[dict[str, Any]] = []
    for review, pair, article in zip(reviews, pairs, news, strict=True):
        requests += [
            {"task": "sst2", "input": review},
            {"task": "rte", "input": pair},
            {"task": "news", "input": article},
        ]
    return requests


def test_the_text_of_a_prompt_may_be_its_embeddings(stocked: Served) -> None:
    """A prompt is rows of an embedding table, so these rows in front must act as this text in front."""
    text = "a gripping, funny and moving film"
    body = {"labels": ["negative", "positive"]}
    prompt = stocked.post("/v1/classify", {"task": "sst2", "input": text})["results"][0]
    written = f"Is this movie review positive or negative? {text}"
    plain = stocked.post("/v1/classify", {"task": None, "input": written, **body})["results"][0]
    for label, score in plain["log_probabilities"].items():
        assert prompt["log_probabilities"][label] == pytest.approx(score, abs=1e-4)


def test_mixed_tasks_in_one_body_answer_as_each_alone(stocked: Served, shared: Path) -> None:
    requests = texts(shared, 8)
    for index, length in enumerate((1, 20, 100, 150)):
        requests.append({"task": f"random-{length}", "input": requests[3 * index]["input"]})
    body = {"requests": [{**request, "truncate": True} for request in requests], "max_new_tokens": 6}
    together = stocked.post("/v1/generate", body)["results"]
    same = 0
    for request, result in zip(requests, together, strict=True):
        assert result["task"] == f"default/{request['task']}" and "error" not in result
        alone = stocked.post("/v1/generate", {**request, "truncate": True, "max_new_tokens": 6})
        same += alone["results"][0]["text"] == result["text"]
    assert same == len(requests)
    assert stocked.metric("chorus_batch_tasks_sum") > stocked.metric("chorus_batch_tasks_count")


def test_the_server_writes_the_tokens_of_the_reference(served: Served, shared: Path) -> None:
    """The reference implementation's greedy tokens, of prompts of five lengths mixed in one body."""
    import ml_dtypes  # noqa: F401  (registers bfloat16 for the reader)
    from safetensors.numpy import load_file

    from chorus_server.model.vocabulary import Vocabulary

    folder = shared / "models" / "flan-t5-small-title"
    record = json.loads((FIXTURES / "parity" / "flan_t5_small_title.json").read_text())
    table = np.asarray(load_file(folder / "model.safetensors")["shared.weight"], np.float32)
    values = table[record["prompt_ids"]] * np.float32(record["prompt_scale"])
    cases = [case for case in record["cases"] if case["prompt_length"] + len(case["ids"]) <= 256]
    for length in {case["prompt_length"] for case in cases} - {0}:
        buffer = io.BytesIO()
        np.save(buffer, values[:length])
        url = f"/v1/tasks/reference-{length}/versions"
        assert served.http.post(url, content=buffer.getvalue(), headers=BINARY).status_code == 201
    requests = [
        {"task": f"reference-{length}" if (length := case["prompt_length"]) else None, "input": case["text"]}
        for case in cases
    ]
    body = {"requests": requests, "logprobs": True, "max_new_tokens": record["new_tokens"]}
    answer = served.post("/v1/generate", body)
    vocabulary = Vocabulary.load(folder / "spiece.model")
    assert len(cases) >= 25
    for case, result in zip(cases, answer["results"], strict=True):
        expected = [vocabulary.piece(token) for token in case["greedy"] if token != 1]
        assert result["choices"][0]["logprobs"]["tokens"][: len(expected)] == expected
        assert result["usage"]["output_tokens"] == len(expected)
        assert (result["finish_reason"] == "stop") == (case["greedy"][-1] == 1)


def test_reviews_are_told_apart(stocked: Served, shared: Path) -> None:
    rows = tsv(shared / "data" / "glue" / "SST-2" / "dev.tsv", 64)
    answer = stocked.post("/v1/classify", {"task": "sst2", "inputs": [row["sentence"] for row in rows]})
    right = sum(
        result["label"] == ("negative", "positive")[int(row["label"])]
        for row, result in zip(rows, answer["results"], strict=True)
    )
    # Half is chance; the model was only ever given the question as a prompt's values.
    assert right / len(rows) >= 0.75, right


def test_an_ensemble_votes_on_real_reviews(stocked: Served, shared: Path) -> None:
    rows = tsv(shared / "data" / "glue" / "SST-2" / "dev.tsv", 16)
    tasks = ["sst2", "sst2-b", "sst2-c"]
    inputs = [row["sentence"] for row in rows]
    answer = stocked.post("/v1/ensemble", {"tasks": tasks, "inputs": inputs})
    for result in answer["results"]:
        votes = [member["answer"] for member in result["members"]]
        assert result["answer"] == max(set(votes), key=votes.count)


def test_beams_and_streaming_on_real_text(stocked: Served, shared: Path) -> None:
    (request, *_) = [request for request in texts(shared, 2) if request["task"] == "news"]
    body = {**request, "truncate": True, "max_new_tokens": 8}
    beams = stocked.post("/v1/generate", {**body, "num_beams": 4, "n": 4})["results"][0]["choices"]
    assert len({choice["text"] for choice in beams}) > 1
    whole = stocked.post("/v1/generate", body)["results"][0]["text"]
    streamed = stocked.http.post("/v1/generate", json={**body, "stream": True}).text
    pieces = [
        json.loads(block.split("data: ", 1)[1])["text"]
        for block in streamed.strip().split("\n\n")
        if block.startswith("event: token")
    ]
    assert "".join(pieces) == whole


def test_clients_of_many_tasks_at_once_compile_nothing(stocked: Served, shared: Path) -> None:
    before = stocked.metric("chorus_compiles_total")

    def one(request: dict[str, Any]) -> int:
        body = {**request, "truncate": True, "max_new_tokens": 4}
        return stocked.http.post("/v1/generate", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, texts(shared, 16))) == {200}
    assert stocked.metric("chorus_compiles_total") == before
    assert stocked.metric("chorus_compiles_total", cause="request") == 0
    names = ("permits", "queued_requests", "slots_in_use", "encoder_memories", "prompt_rows_in_use")
    assert {name: stocked.metric(f"chorus_{name}") for name in names} == dict.fromkeys(names, 0.0)


def test_neighbors_of_a_prompt_made_of_words_are_those_words(stocked: Served) -> None:
    rows = stocked.http.get("/v1/tasks/sst2/versions/1/neighbors").json()["rows"]
    nearest = [row["neighbors"][0] for row in rows]
    assert all(neighbor["cosine"] == pytest.approx(1, abs=1e-4) for neighbor in nearest)
    assert "▁movie" in [neighbor["piece"] for neighbor in nearest]
