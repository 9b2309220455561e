"""The client and `chorus tune` against the real server and store; a test runs the jobs as a runner would."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chorus import AsyncClient, Client, errors
from chorus.cli.root import chorus
from prompts_store.jobs.records import Job, Lease
from prompts_store.testing import file_bytes
from tests.server.api.api_harness import FINGERPRINT, ApiServer, eventually

SETTINGS: dict[str, Any] = {"labels": ["no", "yes"], "recipe": {"prompt_length": 3, "steps": 4}}
Work = Callable[[Job, Lease], None]


@pytest.fixture
def real(api: ApiServer) -> Iterator[Client]:
    with Client(api.url) as client:
        yield client


@contextmanager
def runner(api: ApiServer, work: Work) -> Iterator[None]:
    """Runs the next job in a thread: takes it, does `work` with it, and ends it unless that did."""

    def run() -> None:
        taken: list[tuple[Job, Lease]] = []

        def claimed() -> bool:
            found = api.store.claim_job("tuning", "a runner", 60, FINGERPRINT)
            if found is not None:
                taken.append(found)
            return found is not None

        eventually(claimed)
        work(*taken[0])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(300)
        assert not thread.is_alive()


def trained(api: ApiServer) -> Work:
    """Four steps, an evaluation, a version."""

    def work(job: Job, lease: Lease) -> None:
        api.store.update_job(lease, status="running")
        for step in range(1, 5):
            told = {
                "step": step,
                "steps": 4,
                "losses": [1 / step],
                "steps_per_second": 2.0,
                "seconds_left": 0.0,
            }
            api.store.append_events(lease, [("step", told)])
        metrics = {"accuracy": 0.75, "mean": 0.75}
        where = {"prompt": 0, "task": "tuned", "step": 4, "split": "validation", "best": True}
        made = {"task": "tuned", "reference": "default/tuned@1", "metrics": {"validation_accuracy": 0.75}}
        api.store.append_events(lease, [("evaluated", where | {"metrics": metrics}), ("published", made)])
        api.store.update_job(lease, progress={"step": 4, "steps": 4})
        result = {"prompts": [made], "ensemble": None, "mistakes": kept(api, job)}
        api.store.finish_job(lease, "succeeded", result=result)

    return work


def kept(api: ApiServer, job: Job) -> str:
    """A file of what the version gets wrong, as a job leaves it."""
    confusion = {"labels": ["no", "yes"], "counts": [[2, 1, 0], [0, 1, 0]]}
    hardest = [{"row": 7, "text": "not bad", "answer": "yes", "said": "no", "loss": 2.5}]
    line = {"reference": "default/tuned@1", "split": "validation", "rows": 4, "confusion": confusion}
    with api.store.write_file("default", f"{job.id}-mistakes.jsonl", max_bytes=1 << 20) as writer:
        writer.write(json.dumps(line | {"hardest": hardest}).encode() + b"\n")
        return writer.commit().id


def test_a_job_from_rows_to_result(api: ApiServer, real: Client) -> None:
    with runner(api, trained(api)):
        job = real.tuning.start("tuned", train=[{"text": "good", "label": "yes"}], **SETTINGS)
        with real.tuning.events(job) as events:
            kinds = [event.kind for event in events]
            assert events.done is not None and events.done.status == "succeeded"
    assert kinds == ["status"] * 3 + ["step"] * 4 + ["evaluated", "published", "status"]
    ended = real.tuning.wait(job)
    assert ended.succeeded and ended.result["prompts"][0]["reference"] == "default/tuned@1"
    assert ended.progress == {"step": 4, "steps": 4}
    assert [event.kind for event in real.tuning.past_events(job)] == kinds
    assert next(found.id for found in real.tuning.list(status="succeeded")) == job.id
    (wrong,) = real.tuning.mistakes(ended)
    assert (wrong["reference"], wrong["hardest"][0]["row"]) == ("default/tuned@1", 7)
    real.files.delete(ended.result["mistakes"])
    with pytest.raises(errors.NotFoundError):
        real.tuning.mistakes(ended)
    with pytest.raises(errors.InvalidArgumentError, match="has no mistakes"):
        real.tuning.mistakes(job)
    file = ended.spec["prompts"][0]["data"]["train"]["file"]
    assert real.files.get(file).name == "rows.jsonl"
    real.files.delete(file)


def test_an_awaiting_client_waits_too(api: ApiServer) -> None:
    async def tune() -> str:
        async with AsyncClient(api.url) as client:
            file = await client.files.push([{"text": "good", "label": "yes"}])
            job = await client.tuning.start("tuned", train=file, **SETTINGS)
            return (await client.tuning.wait(job)).status

    with runner(api, trained(api)):
        assert asyncio.run(tune()) == "succeeded"


def test_a_large_file_arrives_whole(real: Client, api: ApiServer, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"text": "good", "label": "yes"}\n' * 100_000)
    file = real.files.push(path)
    assert file_bytes(api.store, "default", file.id) == path.read_bytes()
    assert file in real.files.list()


def test_refusals_are_typed_and_leave_no_file(real: Client) -> None:
    before = real.files.list()
    with pytest.raises(errors.InvalidInputError) as raised:
        real.tuning.start("tuned", train=[{"text": "a"}], recipe={"steps": 0})
    assert raised.value.field == "recipe.steps"
    with pytest.raises(errors.NotFoundError) as absent:
        real.tuning.start("tuned", train="file-" + "0" * 24, **SETTINGS)
    assert (absent.value.code, absent.value.field) == ("unknown_file", "data.train.file")
    with pytest.raises(errors.NotFoundError):
        list(real.tuning.events("job-" + "0" * 24))
    with pytest.raises(errors.InvalidInputError) as empty:
        real.files.push(b"", name="a.tsv")
    assert empty.value.code == "empty_file"
    assert real.files.list() == before


def test_a_cancelled_job_is_resumed(api: ApiServer, real: Client) -> None:
    job = real.tuning.start("tuned", train=[{"text": "good", "label": "yes"}], **SETTINGS)
    assert real.tuning.cancel(job).status == "cancelled"
    with pytest.raises(errors.ConflictError):
        real.tuning.cancel(job)
    assert real.tuning.wait(job).status == "cancelled"
    with runner(api, trained(api)):
        real.tuning.resume(job)
        assert real.tuning.wait(job).succeeded


def command(api: ApiServer, *words: str) -> Any:
    return CliRunner().invoke(chorus, ["--url", api.url, *words])


def test_the_command_follows_a_job_to_its_end(api: ApiServer, tmp_path: Path) -> None:
    train = tmp_path / "train.tsv"
    train.write_text("text\tlabel\ngood\tyes\nbad\tno\n")
    words = ("tune", "tuned", str(train), "--label", "no", "--label", "yes", "--recipe", "prompt_length=3")
    with runner(api, trained(api)):
        result = command(api, *words)
    assert result.exit_code == 0, result.output
    assert "loss 1" in result.stdout and "accuracy 0.75 on validation  best so far" in result.stdout
    assert "default/tuned@1  accuracy 0.75 (validation)" in result.stdout
    job = result.stderr.split()[0]
    assert "succeeded" in command(api, "tune", "show", job).stdout
    wrong = command(api, "tune", "mistakes", job)
    assert "default/tuned@1, 4 rows of the validation split" in wrong.stdout, wrong.output
    assert "not bad" in wrong.stdout and "2.5" in wrong.stdout
    assert json.loads(command(api, "tune", "mistakes", job, "--json").stdout)["versions"][0]["rows"] == 4
    assert "4 of 4" in command(api, "tune", "list").stdout
    again = [json.loads(line) for line in command(api, "tune", "follow", job, "--json").stdout.splitlines()]
    assert again[-1]["job"]["status"] == "succeeded"
    assert "train.tsv" in command(api, "files", "list").stdout


def test_the_command_tells_why_a_job_failed(api: ApiServer, tmp_path: Path) -> None:
    train = tmp_path / "train.tsv"
    train.write_text("text\tlabel\n")

    def failing(job: Job, lease: Lease) -> None:
        error = {"code": "empty_split", "message": "The train split is empty.", "field": "data.train"}
        api.store.append_events(lease, [("failed", error)])
        api.store.finish_job(lease, "failed", error=error)

    with runner(api, failing):
        result = command(api, "tune", "tuned", str(train), "--label", "no", "--label", "yes",
                         "--recipe", "prompt_length=3")  # fmt: skip
    assert result.exit_code == 1
    assert "chorus: the job failed: empty_split in data.train: The train split is empty." in result.stderr
    refused = command(api, "tune", "tuned", str(train), "--recipe", "prompt_length=300")
    assert refused.exit_code == 1 and "prompt_rows_exceeded in recipe.prompt_length" in refused.stderr
