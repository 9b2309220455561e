"""`/openai/v1/batches`: the same jobs in the fields of OpenAI's API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chorus_server.jobs_wiring import start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from tests.server.api.api_harness import FINGERPRINT, ApiServer, Gate, error_of, eventually, gated_server
from tests.server.api.batch.test_batch import FAULTS, GOOD, LABELS, line, upload

ROUTE = "/openai/v1/batches"


def body(file: str, **changes: Any) -> dict[str, Any]:
    sent = {"input_file_id": file, "endpoint": "/v1/classify", "completion_window": "24h", "metadata": None}
    return {**sent, **changes}


def test_a_batch_goes_through_its_states(tmp_path: Path, vocabulary: Vocabulary, gate: Gate) -> None:
    with gated_server(tmp_path, vocabulary, gate) as api:
        api.push("first", labels=LABELS)
        lines = [GOOD, line("b", {"task": "nothing", "input": "a"})]
        made = api.post(ROUTE, body(upload(api, lines), metadata={"who": "me"}))
        assert made.status_code == 200, made.text
        found = made.json()
        assert found["object"] == "batch" and found["status"] == "validating" and found["errors"] is None
        assert found["metadata"] == {"who": "me"} and found["usage"] is None
        assert found["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
        path = f"{ROUTE}/{found['id']}"
        gate.close()
        start_engine_jobs(api.services)
        assert gate.waiting.wait(300)
        going = api.http.get(path).json()
        assert going["status"] == "in_progress" and going["request_counts"]["total"] == 2
        assert going["in_progress_at"] >= going["created_at"] and going["completed_at"] is None
        gate.open.set()
        over = ended(api, path)
        assert over["status"] == "completed" and over["completed_at"] >= over["in_progress_at"]
        assert over["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
        assert over["usage"]["total_tokens"] == over["usage"]["input_tokens"] > 0
        for file, custom_id in ((over["output_file_id"], "a"), (over["error_file_id"], "b")):
            assert f'"custom_id":"{custom_id}"' in api.http.get(f"/v1/files/{file}/content").text
            assert api.http.get(f"/openai/v1/files/{file}").json()["purpose"] == "batch_output"
        again = api.post(f"{path}/cancel", None)
        assert again.status_code == 409 and again.headers["x-should-retry"] == "false"


def test_a_batch_that_is_asked_again_is_not_finalizing(
    tmp_path: Path, vocabulary: Vocabulary, gate: Gate
) -> None:
    """Its first attempt was writing the files, on a machine whose lines this one does not have."""
    with gated_server(tmp_path, vocabulary, gate) as api:
        api.push("first", labels=LABELS)
        path = f"{ROUTE}/{api.post(ROUTE, body(upload(api, [GOOD]))).json()['id']}"
        claimed = api.store.claim_job("batch", "another machine", 60, FINGERPRINT)
        assert claimed is not None
        progress = {"phase": "writing", "rows": 1, "rows_in_all": 1}
        api.store.update_job(claimed[1], status="running", progress=progress)
        assert api.http.get(path).json()["status"] == "finalizing", "the control"
        api.store.release_job(claimed[1])
        gate.close()
        start_engine_jobs(api.services)
        assert gate.waiting.wait(300)
        found = api.http.get(path).json()
        assert (found["status"], found["request_counts"]["completed"]) == ("in_progress", 0)
        assert api.store.get_job("default", found["id"]).status == "running"
        gate.open.set()
        assert ended(api, path)["status"] == "completed"


def test_pages_without_what_a_key_may_not_see(tmp_path: Path, vocabulary: Vocabulary) -> None:
    keys = {"e" * 16: Principal("ours", "all"), "s" * 16: Principal("ours", "some", tasks=("first",))}
    mine = {"authorization": f"Bearer {'s' * 16}"}
    with ApiServer(tmp_path, vocabulary, keys=KeyRing(keys, Principal("ours", "anonymous"))) as api:
        api.http.headers["authorization"] = f"Bearer {'e' * 16}"
        file, own = upload(api, [GOOD]), upload(api, [GOOD], **mine)

        def made(n: int, **headers: str) -> str:
            answer = api.http.post(
                ROUTE, json=body(own if headers else file, metadata={"n": str(n)}), headers=headers
            )
            found: str = answer.json()["id"]
            return found

        seen = [made(n, **(mine if n % 3 == 0 else {})) for n in range(9)][::-1]

        def page(after: str | None = None, **headers: str) -> tuple[list[str], bool]:
            query = {"limit": 2} | ({} if after is None else {"after": after})
            found = api.http.get(ROUTE, params=query, headers=headers).json()
            return [each["id"] for each in found["data"]], found["has_more"]

        assert page() == (seen[:2], True), "the control"
        shown = seen[2::3]
        assert page(**mine) == (shown[:2], True) and page(shown[1], **mine) == (shown[2:], False)


def ended(api: ApiServer, path: str) -> dict[str, Any]:
    eventually(lambda: api.http.get(path).json()["status"] in ("completed", "failed", "cancelled"))
    found: dict[str, Any] = api.http.get(path).json()
    return found


def test_what_is_wrong_with_the_file_is_told_by_line(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with ApiServer(tmp_path, vocabulary) as api:
        start_engine_jobs(api.services)
        content, number, param, _ = FAULTS["doubled"]
        over = ended(api, f"{ROUTE}/{api.post(ROUTE, body(upload(api, content))).json()['id']}")
        assert over["status"] == "failed" and over["failed_at"] >= over["created_at"]
        (fault,) = over["errors"]["data"]
        assert (fault["line"], fault["param"]) == (number, param) and fault["code"] == "invalid_input"
        assert over["output_file_id"] is None and over["error_file_id"] is None


def test_lists_cancellation_and_refusals(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with ApiServer(tmp_path, vocabulary) as api:
        file = upload(api, [GOOD])
        made = [api.post(ROUTE, body(file, metadata={"n": n})).json()["id"] for n in "123"]
        page = api.http.get(ROUTE, params={"limit": 2}).json()
        assert [each["id"] for each in page["data"]] == made[:0:-1] and page["has_more"] is True
        assert (page["object"], page["first_id"], page["last_id"]) == ("list", made[2], made[1])
        page = api.http.get(ROUTE, params={"after": page["last_id"]}).json()
        assert [each["id"] for each in page["data"]] == made[:1] and page["has_more"] is False
        cancelled = api.post(f"{ROUTE}/{made[0]}/cancel", None).json()
        assert cancelled["status"] == "cancelled" and cancelled["cancelled_at"] is not None
        for refused, param in (
            (body(file, completion_window="1h"), "completion_window"),
            (body(file, endpoint="/v1/embeddings"), "endpoint"),
            (body(file, output_expires_after={"seconds": 60}), "output_expires_after"),
            (body("file-0"), "input_file_id"),
            ({"endpoint": "/v1/classify"}, "input_file_id"),
        ):  # fmt: skip
            answer = api.post(ROUTE, refused)
            assert answer.status_code in (400, 404) and error_of(answer)["field"] == param, answer.text
        for after in ("job-0", "job-" + 24 * "0"):
            answer = api.http.get(ROUTE, params={"after": after})
            assert answer.status_code == 400 and error_of(answer)["field"] == "after"
        assert api.http.get("/v1/batches").json()["batches"][0]["id"] == made[2], "the same jobs"


@pytest.mark.parametrize("extra", [{"user": "me"}, {"output_expires_after": None}, {"service_tier": "auto"}])
def test_noise_is_ignored(tmp_path: Path, vocabulary: Vocabulary, extra: dict[str, Any]) -> None:
    with ApiServer(tmp_path, vocabulary) as api:
        assert api.post(ROUTE, body(upload(api, [GOOD]), **extra)).status_code == 200
