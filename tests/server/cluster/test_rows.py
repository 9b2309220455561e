"""Rows answered in this process, on a server's store and scheduler; only the device is in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from chorus_server.api.http.errors import StoreAnswerError
from chorus_server.cluster import rows
from chorus_server.cluster.rows import RowAnswers
from chorus_server.errors import ChorusError, ForbiddenError, InvalidInputError, NotReadyError
from prompts_store.errors import StoreError
from tests.server.api.api_harness import ApiServer

TEXTS = ["good film", None, "bad movie", "word " * 500]


@pytest.fixture
def answers(beside: ApiServer) -> Callable[..., RowAnswers]:
    """Makes `RowAnswers` whose process is the server's."""

    def make(endpoint: Any = "/v1/generate", task: str = "sentiment", **body: Any) -> RowAnswers:
        return RowAnswers(endpoint, {"task": task, **body}, "text", {"data_dir": beside.settings.data_dir})

    return make


def test_rows_are_answered_as_the_route_answers_them(
    server: ApiServer, answers: Callable[..., RowAnswers]
) -> None:
    found = answers(max_new_tokens=4)(pa.table({"text": TEXTS, "n": [1, 2, 3, 4]})).to_pylist()
    body = {"task": "sentiment", "inputs": [TEXTS[0], TEXTS[2]], "max_new_tokens": 4}
    first, third = server.post("/v1/generate", body).json()["results"]
    assert [row["n"] for row in found] == [1, 2, 3, 4]
    for row, said in ((found[0], first), (found[2], third)):
        assert row["answer_text"] == said["text"]
        assert row["answer_finish_reason"] == said["finish_reason"]
        assert (row["answer_task"], row["answer_version"]) == ("default/sentiment", 1)
        assert row["answer_output_tokens"] == said["usage"]["output_tokens"]
        assert row["answer_error"] is None
    assert [found[n]["answer_error"] for n in (1, 3)] == ["invalid_input", "input_too_long"]


def test_what_rows_used_is_kept_before_they_are_given(
    server: ApiServer, answers: Callable[..., RowAnswers], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[bool] = []
    monkeypatch.setattr(server.services.usage, "save", lambda: saved.append(True))
    answers()(pa.table({"text": ["good film"]}))
    assert saved == [True]


def test_a_task_that_is_not_there_is_found_at_the_start(answers: Callable[..., RowAnswers]) -> None:
    with pytest.raises(ChorusError) as caught:
        answers(task="sentimint")
    assert caught.value.field == "body.task"


def test_another_format_of_batches_and_a_closed_actor_are_refused(answers: Callable[..., RowAnswers]) -> None:
    made: Any = answers()
    with pytest.raises(InvalidInputError) as caught:
        made({"text": ["good film"]})
    assert caught.value.field == "batch_format"
    made.close()
    with pytest.raises(NotReadyError):
        made(pa.table({"text": ["good film"]}))


@pytest.mark.parametrize("patience", [300.0, 0.0])
def test_rows_wait_for_a_store_that_does_not_answer(
    answers: Callable[..., RowAnswers], monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """The control has no patience."""
    honest, asked = rows.answer_lines, 0

    async def away(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise StoreError("away") if asked == 1 else StoreAnswerError(StoreError("away"))
        return await honest(*arguments)

    monkeypatch.setattr(rows, "answer_lines", away)
    monkeypatch.setattr(rows, "_STORE_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(rows, "STORE_SECONDS", patience)
    made, table = answers(), pa.table({"text": ["good film"]})
    if not patience:
        with pytest.raises((StoreError, StoreAnswerError)):
            made(table)
        return
    (row,) = made(table).to_pylist()
    assert (row["answer_error"], asked) == (None, 3)


def test_a_tenant_that_is_suspended_is_noticed_within_a_batch(
    server: ApiServer, answers: Callable[..., RowAnswers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second block is asked as long as nobody is."""
    monkeypatch.setattr(rows, "BLOCKS_AT_ONCE", 1)
    honest, suspend, blocks = rows.answer_lines, False, 0

    async def and_then_suspended(*arguments: Any) -> Any:
        nonlocal blocks
        blocks += 1
        answered = await honest(*arguments)
        if suspend:
            services = server.services
            await services.library.write(services.library.store.suspend_tenant, "default")
            await services.changes.read()
        return answered

    monkeypatch.setattr(rows, "answer_lines", and_then_suspended)
    table, made = pa.table({"text": ["good film"] * (rows.LINES_AT_ONCE + 1)}), answers()
    assert made(table)["answer_error"].null_count == len(table) and blocks == 2
    suspend = True
    with pytest.raises(ForbiddenError):
        made(table)
    assert blocks == 3
