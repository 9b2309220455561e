from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from chorus_server.api.routes import neighbors
from chorus_server.api.routes.neighbors import NeighborsAnswer, nearest
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training.initialisers import InitialiserSource, initial_prompt
from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest
from tests.server.api.api_harness import WIDTH, ApiServer, error_of


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_blocks_give_what_the_whole_table_gives(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    table = random.normal(size=(201, 5)).astype(np.float32)
    table[3] = 0
    values = random.normal(size=(4, 5)).astype(np.float32) * 1000
    with np.errstate(invalid="ignore"):
        whole = values @ table.T / np.linalg.norm(values, axis=1)[:, None] / np.linalg.norm(table, axis=1)
    whole[:, 3] = 0
    expected = np.argsort(-whole, axis=1)[:, :6]
    monkeypatch.setattr(neighbors, "_BLOCK_PIECES", block)
    ids, cosines = nearest(values, table, 6)
    assert np.array_equal(ids, expected)
    assert np.allclose(cosines, np.take_along_axis(whole, expected, 1), atol=1e-6)


@pytest.mark.parametrize("block", [4, 1000])
def test_equal_pieces_come_in_the_order_of_their_ids(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.repeat(np.eye(2, dtype=np.float32), 10, axis=0)[::-1]
    monkeypatch.setattr(neighbors, "_BLOCK_PIECES", block)
    ids, cosines = nearest(np.eye(2, dtype=np.float32), table, 3)
    assert ids.tolist() == [[10, 11, 12], [0, 1, 2]] and cosines.tolist() == [[1.0] * 3] * 2


def test_more_than_the_table_has_is_the_table() -> None:
    ids, _ = nearest(np.ones((1, 2), np.float32), np.eye(2, dtype=np.float32), 5)
    assert ids.shape == (1, 2)


def test_a_row_that_is_an_embedding_finds_its_piece(api: ApiServer, vocabulary: Vocabulary) -> None:
    import io

    chosen = [5, 17, vocabulary.size - 1]
    buffer = io.BytesIO()
    np.save(buffer, api.table[chosen] * 3)
    headers = {"content-type": "application/octet-stream"}
    assert (
        api.http.post("/v1/tasks/near/versions", content=buffer.getvalue(), headers=headers).status_code
        == 201
    )
    answer = api.http.get("/v1/tasks/near/versions/1/neighbors", params={"top_k": 2})
    assert answer.status_code == 200, answer.text
    NeighborsAnswer.model_validate(answer.json())
    rows = answer.json()["rows"]
    assert [row["neighbors"][0]["id"] for row in rows] == chosen
    assert [row["neighbors"][0]["piece"] for row in rows] == [vocabulary.piece(id) for id in chosen]
    assert all(row["neighbors"][0]["cosine"] == pytest.approx(1) for row in rows)
    assert rows[0]["norm"] == pytest.approx(3 * np.linalg.norm(api.table[5]), rel=1e-5)
    assert len(rows[0]["neighbors"]) == 2 and api.table.shape[1] == WIDTH
    assert [row["moved"] for row in rows] == [None] * 3, "nobody knows how an upload began"
    for bad in (0, 51, "x"):
        refused = api.http.get("/v1/tasks/near/versions/1/neighbors", params={"top_k": bad})
        assert (refused.status_code, error_of(refused)["field"]) == (400, "top_k")
    assert api.http.get("/v1/tasks/near/versions/2/neighbors").status_code == 404


def test_how_far_training_moved_each_row(api: ApiServer, vocabulary: Vocabulary) -> None:
    """The lineage of a tuned version says what it began with: here the labels' embeddings, as nothing moved
    but the first row."""
    recipe = Recipe(prompt_length=3, initialiser="class_labels")
    source = InitialiserSource(vocabulary, lambda ids: api.table[list(ids)], WIDTH)
    labels = ("good", "bad")
    values = initial_prompt(recipe, source, 5, 1, labels=labels)
    values[0] *= -2
    first = np.linalg.norm(values[0]) * 1.5
    lineage = {"source": "tuning", "seed": 5, "index": 1, "recipe": recipe.to_json()}
    manifest = PromptManifest(prompt_digest(values), length=3, width=WIDTH, labels=labels)
    api.store.publish("default", "tuned", values, manifest, lineage=lineage)
    began = {"source": "tuning", "seed": 5, "index": 1, "initial_prompt": "default/tuned@1"}
    began["recipe"] = recipe.changed(initialiser="existing_prompt").to_json()
    other = np.ascontiguousarray(values[::-1])
    api.store.publish("default", "more", other, replace(manifest, digest=prompt_digest(other)), lineage=began)

    def moved(task: str) -> list[Any]:
        rows = api.http.get(f"/v1/tasks/{task}/versions/1/neighbors").json()["rows"]
        return [row["moved"] for row in rows]

    turned, *same = moved("tuned")
    assert turned == {"cosine": pytest.approx(-1), "distance": pytest.approx(first, rel=1e-5)}
    assert all(each == {"cosine": pytest.approx(1), "distance": 0} for each in same)
    there = moved("more")
    assert there[1] == {"cosine": pytest.approx(1), "distance": 0} and there[0]["distance"] > 0
    assert api.http.delete("/v1/tasks/tuned").status_code == 204
    assert moved("more") == [None] * 3, "what it began with is gone"


def test_first_values_of_a_base_that_computes_in_bf16_are_its_rows_as_f32(
    api: ApiServer, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a job takes them, see `TuningBase.embed`: on an accelerator the table itself is in bf16."""
    table = api.table.astype(ml_dtypes.bfloat16)
    recipe = Recipe(prompt_length=3, initialiser="class_labels")
    source = InitialiserSource(vocabulary, lambda ids: np.asarray(table[list(ids)], np.float32), WIDTH)
    labels = ("a joyless mess", "good")  # of several tokens: a mean, which bf16 would round
    values = initial_prompt(recipe, source, 5, 1, labels=labels)
    lineage = {"source": "tuning", "seed": 5, "index": 1, "recipe": recipe.to_json()}
    manifest = PromptManifest(prompt_digest(values), length=3, width=WIDTH, labels=labels)
    api.store.publish("default", "halves", values, manifest, lineage=lineage)
    monkeypatch.setattr(api, "table", table)
    answer = api.http.get("/v1/tasks/halves/versions/1/neighbors")
    assert answer.status_code == 200, answer.text
    moved = [row["moved"] for row in answer.json()["rows"]]
    assert moved == [{"cosine": pytest.approx(1), "distance": 0}] * 3
