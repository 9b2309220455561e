"""Reliability T3 through HTTP: every bad upload is a 400 that names the file, stores nothing and hurts
nobody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from chorus_server.api.services import BaseModelInfo
from chorus_server.model.vocabulary import Vocabulary
from prompts_store.artifacts import FORMATS, read_artifact
from tests.faults.artifact_accepted import ACCEPTED
from tests.faults.artifact_builders import BASE, LIMITS, VALUES
from tests.faults.artifact_refused import REFUSED
from tests.server.api.api_harness import ApiServer, error_of, train_vocabulary

BINARY = {"content-type": "application/octet-stream"}


class Bfloat16Server(ApiServer):
    """The harness's server with the corpora's base model."""

    def _base(self, vocabulary: Vocabulary) -> BaseModelInfo:
        return replace(super()._base(vocabulary), compute_dtype="bfloat16", fingerprint=BASE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    vocabulary = Vocabulary.load(train_vocabulary(tmp_path_factory.mktemp("vocabulary")), extra_ids=4)
    settings: dict[str, Any] = {"max_upload_bytes": LIMITS.max_bytes, "prompt_rows": LIMITS.max_length}
    with Bfloat16Server(tmp_path_factory.mktemp("data"), vocabulary, **settings) as server:
        yield server


def upload(server: ApiServer, task: str, content: bytes) -> httpx2.Response:
    return server.http.post(f"/v1/tasks/{task}/versions", content=content, headers=BINARY)


def stored_files(server: ApiServer) -> set[str]:
    """Every file under the data folder but the database's own journal."""
    folder = server.settings.data_dir
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "db-" not in path.name
    }


def test_every_bad_upload_is_refused_and_nothing_of_it_stays(server: ApiServer) -> None:
    assert upload(server, "good", next(iter(ACCEPTED)).build()).status_code == 201
    before = stored_files(server)
    for case in REFUSED:
        answer = upload(server, "bad", case.build())
        error = error_of(answer)
        if case.name == "too large":
            assert (answer.status_code, error["code"]) == (413, "too_large")
            continue
        assert (answer.status_code, error["code"], error["field"]) == (400, case.reason.value, "file"), (
            case.name
        )
        assert "Traceback" not in answer.text
    assert stored_files(server) == before
    assert server.http.get("/v1/tasks/bad").status_code == 404
    answer = server.http.post("/v1/generate", json={"task": "good", "input": "still here"})
    assert answer.status_code == 200, answer.text


def test_every_good_upload_comes_back_to_the_bit(server: ApiServer) -> None:
    for number, case in enumerate(ACCEPTED):
        answer = upload(server, f"good-{number}", case.build())
        assert answer.status_code == 201, (case.name, answer.text)
        # The server adds a note of its own where the file does not name its base model.
        about_file = [note for note in answer.json()["notes"] if "base model" not in note]
        assert len(about_file) == case.notes
        for format in FORMATS:
            got = server.http.get(f"/v1/tasks/good-{number}/versions/1/artifact", params={"format": format})
            assert got.status_code == 200, (case.name, got.text)
            assert read_artifact(got.content, limits=LIMITS).values.tobytes() == case.values.tobytes(), (
                case.name
            )


def test_equal_values_are_one_blob_whatever_the_file(server: ApiServer) -> None:
    same = [case.build() for case in ACCEPTED if case.values is VALUES]
    assert len(same) >= 10
    digests = {upload(server, "same", data).json()["digest"] for data in same}
    assert len(digests) == 1
