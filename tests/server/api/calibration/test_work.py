"""Jobs that calibrate a version on a data file, through HTTP and the engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chorus_server.calibration.fitting import fit
from chorus_server.calibration.records import WITH_PRIOR
from chorus_server.jobs_wiring import start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from prompts_store.jobs.records import OVER
from tests.server.api.api_harness import ApiServer, error_of, eventually

LABELS = ["no", "yes"]
WORDS = ["good", "bad", "funny", "moving", "waste", "warm", "long", "short", "sport", "sky"]
ROWS = [{"said": f"{a} {b}", "label": str(n % 3 % 2)} for n, (a, b) in enumerate(
    (a, b) for a in WORDS[:7] for b in WORDS
)]  # fmt: skip


@pytest.fixture
def api(tmp_path: Path, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    with ApiServer(tmp_path, vocabulary) as server:
        server.push("t", labels=LABELS)
        yield server


@contextmanager
def working(api: ApiServer) -> Iterator[None]:
    """Jobs are taken inside the block."""
    start_engine_jobs(api.services)
    try:
        yield
    finally:
        for runner in api.services.engine_jobs:
            assert runner.stop(300)
        api.services.engine_jobs = ()


def upload(api: ApiServer, rows: list[dict[str, str]] = ROWS) -> str:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    headers = {"content-type": "application/octet-stream"}
    answer = api.http.post("/v1/files", params={"name": "rows.jsonl"}, content=content, headers=headers)
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


def body(file: str, **changes: Any) -> dict[str, Any]:
    texts = {"0": "no", "1": "yes"}
    return {"file": file, "columns": {"text": "said"}, "target_texts": texts, **changes}


def ended(api: ApiServer, sent: dict[str, Any]) -> dict[str, Any]:
    answer = api.post("/v1/tasks/t/versions/1/calibrations", sent)
    assert answer.status_code == 201, answer.text
    path = f"/v1/tasks/t/calibration_jobs/{answer.json()['id']}"
    assert answer.json()["version"] == 1 and answer.json()["spec"]["labels"] == LABELS
    eventually(lambda: api.http.get(path).json()["status"] in OVER)
    found: dict[str, Any] = api.http.get(path).json()
    return found


def test_a_files_rows_become_a_calibration_that_serves(api: ApiServer) -> None:
    file = upload(api)
    with working(api):
        job = ended(api, body(file))
        again = ended(api, body(file, prior=not WITH_PRIOR))
    assert job["status"] == "succeeded", job["error"]
    assert job["result"] == {"version": "default/t@1", "calibration": 1}
    assert again["result"]["calibration"] == 2

    texts = [row["said"] for row in ROWS]
    answers = api.post("/v1/classify", {"task": "t", "inputs": texts}).json()["results"]
    scores = [[answer["log_probabilities"][label] for label in LABELS] for answer in answers]
    wanted = fit(scores, [int(row["label"]) for row in ROWS], with_prior=WITH_PRIOR)
    made = api.http.get("/v1/tasks/t/versions/1/calibrations/1").json()
    assert made["temperature"] == pytest.approx(wanted.temperature, rel=1e-9)
    assert (made["labels"], made["rows"], made["matrix_dtype"]) == (LABELS, len(ROWS), "float32")
    assert made["source"] == {"job": job["id"], "file": file}
    assert {"accuracy", "ece", "brier", "nll", "bins", "risk_coverage"} == set(made["measures"]["raw"])

    page = api.http.get("/v1/tasks/t/versions/1/calibrations").json()
    assert [each["calibration"] for each in page["calibrations"]] == [2, 1]
    assert [each["prior"] is not None for each in page["calibrations"]] == [not WITH_PRIOR, WITH_PRIOR]
    assert api.http.get("/v1/tasks/t/versions/1").json()["calibration"] == 2
    eventually(
        lambda: api.post("/v1/classify", {"task": "t", "input": "x"}).json()["results"][0]["calibration"] == 2
    )


def test_bad_rows_fail_the_job_and_name_the_row(api: ApiServer) -> None:
    few = upload(api, ROWS[:49])
    other = upload(api, [*ROWS, {"said": "x", "label": "2"}])
    lost = upload(api, [*ROWS, {"label": "1"}])
    unknown = upload(api, [{"said": row["said"], "label": "maybe"} for row in ROWS])
    with working(api):
        found = [ended(api, body(file)) for file in (few, other, lost)]
        found.append(ended(api, body(unknown, target_texts={})))
    assert {job["status"] for job in found} == {"failed"}
    assert {job["error"]["field"] for job in found} == {"file"}
    messages = [job["error"]["message"] for job in found]
    assert "49 rows" in messages[0] and "50 or more" in messages[0]
    assert "row 71" in messages[1] and "row 71" in messages[2] and "row 1:" in messages[3]
    assert api.http.get("/v1/tasks/t/versions/1/calibrations").json()["calibrations"] == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"file": None}, "file"),
        ({"labels": ["yes"]}, "labels"),
        ({"labels": ["yes", "yes "]}, "labels.1"),
        ({"target_texts": {"0": "never"}}, "target_texts.0"),
        ({"columns": {"other": "said"}}, "columns"),
        ({"column_names": ["a", "a"]}, "column_names"),
        ({"prior": "yes"}, "prior"),
        ({"temperature": 2.0}, "temperature"),
    ],
)
def test_a_bad_document_is_refused_with_its_field(
    api: ApiServer, changes: dict[str, Any], field: str
) -> None:
    answer = api.post("/v1/tasks/t/versions/1/calibrations", {**body("file-" + "0" * 24), **changes})
    assert answer.status_code == 400, answer.text
    assert error_of(answer)["field"] == field


def test_what_is_not_there_is_not_calibrated(api: ApiServer) -> None:
    assert api.post("/v1/tasks/t/versions/9/calibrations", body(upload(api))).status_code == 404
    for name in ("file-" + "0" * 24, "rows.jsonl"):
        gone = api.post("/v1/tasks/t/versions/1/calibrations", body(name))
        assert gone.status_code == 404 and error_of(gone)["code"] == "unknown_file"
        assert error_of(gone)["field"] == "file"
    assert api.http.get("/v1/tasks/t/calibration_jobs/job-0").status_code == 404
    assert api.http.get("/v1/tasks/t/versions/1/calibrations/1").status_code == 404
    api.push("bare")
    bare = api.post("/v1/tasks/bare/versions/1/calibrations", {"file": upload(api)})
    assert bare.status_code == 400 and error_of(bare)["field"] == "labels"


def test_a_job_that_waits_is_cancelled(api: ApiServer) -> None:
    job = api.post("/v1/tasks/t/versions/1/calibrations", body(upload(api))).json()
    path = f"/v1/tasks/t/calibration_jobs/{job['id']}"
    assert api.post(f"{path}/cancel", None).json()["status"] == "cancelled"
    assert api.http.get(path).json()["status"] == "cancelled"
    api.push("other", labels=LABELS)
    assert api.http.get(path.replace("/t/", "/other/")).status_code == 404
