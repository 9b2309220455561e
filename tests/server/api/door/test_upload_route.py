"""Uploads are counted by what became of them; the label's values are a closed list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chorus_server.api.door.upload_route import UPLOAD_REASONS, reason_of
from chorus_server.metrics import OTHER
from chorus_server.model.vocabulary import Vocabulary
from prompts_store.artifacts import REASONS
from prompts_store.errors import StoreError
from tests.server.api.api_harness import WIDTH, ApiServer, artifact, counted

BINARY = {"content-type": "application/octet-stream"}
PATH = "/v1/tasks/counted/versions"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("uploads"), vocabulary, max_upload_bytes=4096) as server:
        yield server


def test_an_upload_is_accepted_again_when_it_was_there(fresh: ApiServer) -> None:
    before = counted(fresh, "chorus_uploads_accepted_total")
    for created in (201, 200):
        assert fresh.http.post(PATH, content=artifact(), headers=BINARY).status_code == created
    assert counted(fresh, "chorus_uploads_accepted_total") == before + 2


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ({"content": b"no prompt at all", "headers": BINARY}, "unknown_format"),
        ({"content": artifact(3, 0, WIDTH + 1), "headers": BINARY}, "wrong_width"),
        ({"content": artifact()[:-5], "headers": BINARY}, "truncated"),
        ({"content": b"x" * 5000, "headers": BINARY}, "too_large"),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, "unsupported_media_type"),
        ({"content": artifact(), "headers": BINARY, "params": {"colour": "red"}}, "unknown_field"),
        ({"content": artifact(), "headers": BINARY, "params": {"template": "{"}}, "invalid_template"),
        ({"content": artifact(), "headers": BINARY, "params": {"description": "x" * 5000}}, "invalid_input"),
        ({"content": artifact(), "headers": BINARY, "params": {"tenant": "other"}}, "unknown_task"),
        (
            {"files": {"file": ("p", artifact())}, "data": {"metadata": json.dumps({"labels": ["a", "a"]})}},
            "invalid_labels",
        ),
    ],
)
def test_a_refusal_is_counted_under_the_code_of_its_answer(
    fresh: ApiServer, sent: dict[str, Any], reason: str
) -> None:
    accepted = counted(fresh, "chorus_uploads_accepted_total")
    before = counted(fresh, "chorus_uploads_refused_total", reason=reason)
    answer = fresh.http.post(PATH, **sent)
    assert (answer.status_code >= 400, answer.json()["error"]["code"]) == (True, reason)
    assert counted(fresh, "chorus_uploads_refused_total", reason=reason) == before + 1
    assert counted(fresh, "chorus_uploads_accepted_total") == accepted


def test_other_routes_count_no_uploads(fresh: ApiServer) -> None:
    fresh.http.get("/v1/tasks/nothing")
    assert counted(fresh, "chorus_uploads_refused_total", reason="not_found") == 0


def test_the_reasons_are_a_closed_list() -> None:
    assert {str(reason) for reason in REASONS} < UPLOAD_REASONS
    assert reason_of(StoreError("x", code="never_heard_of")) == OTHER
    assert reason_of(RuntimeError("x")) == "internal"
