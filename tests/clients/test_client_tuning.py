"""Files and tuning jobs from Python: what is sent, what comes back, and jobs followed over broken lines."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chorus import AsyncClient, Client, errors
from chorus.datafiles import PIECE_BYTES, Content, data_upload
from chorus.types import Job
from tests.clients.fake_chorus import FakeChorus
from tests.clients.fake_tuning import happened, refuse

TSV = b"text\tlabel\ngood\tyes\n"


def steps(*numbers: int) -> list[dict[str, Any]]:
    return [happened(number, "step", {"step": number}) for number in numbers]


# Files.


def test_a_file_is_sent_as_its_bytes_with_its_length(url: str, fake: FakeChorus, tmp_path: Path) -> None:
    path = tmp_path / "tränen 1.tsv"
    path.write_bytes(TSV * 50_000)
    with Client(url) as client:
        file = client.files.push(path)
    request = fake.seen[-1]
    assert request.headers["content-type"] == "application/octet-stream"
    assert request.headers["content-length"] == str(len(TSV) * 50_000)
    assert request.url.params["name"] == "tränen 1.tsv"
    assert fake.tuning.data[file.id] == path.read_bytes()
    assert (file.name, file.size_bytes) == ("tränen 1.tsv", path.stat().st_size)


def test_an_awaiting_client_sends_the_same(url: str, fake: FakeChorus, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(TSV * 50_000)

    async def push() -> str:
        async with AsyncClient(url) as client:
            await client.files.push(b"x", name="b.tsv")
            return (await client.files.push(path)).sha256

    assert asyncio.run(push()) == fake.tuning.records["file-" + f"{1:024x}"]["sha256"]
    assert [*fake.tuning.data.values()] == [b"x", path.read_bytes()]


def test_a_file_is_read_in_pieces_and_as_often_as_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(bytes(range(256)) * 4000)
    for source in (path, path.read_bytes()):
        content = Content(source, path.stat().st_size)
        for _ in range(2):
            pieces = list(content)
            assert b"".join(pieces) == path.read_bytes()
            assert max(map(len, pieces)) == PIECE_BYTES


def test_a_file_that_grows_is_sent_as_it_was_and_one_that_shrinks_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"x" * 10)
    upload = data_upload(path)
    path.write_bytes(b"x" * 20)
    assert b"".join(upload.content) == b"x" * 10
    path.write_bytes(b"x" * 5)
    with pytest.raises(errors.InvalidArgumentError, match="shorter"):
        list(upload.content)


def test_rows_become_json_lines(client: Client, fake: FakeChorus) -> None:
    file = client.files.push([{"text": "größe", "label": 1}, {"text": "b", "label": None}])
    assert file.name == "rows.jsonl"
    assert (
        fake.tuning.data[file.id].decode() == '{"text": "größe", "label": 1}\n{"text": "b", "label": null}\n'
    )


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("/nowhere/x.tsv", "is not there"),
        ("/", "is a folder"),
        (b"x", "no name"),
        ([], "no rows"),
        ([1], "Row 1 is not an object"),
        ([{"a": float("nan")}], "Row 1 cannot"),
        ({"text": "a"}, "dict"),
        (3, "int"),
    ],
)
def test_what_is_no_training_data(client: Client, fake: FakeChorus, source: Any, why: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=why):
        client.files.push(source)
    assert fake.seen == []


def test_files_are_listed_shown_and_deleted(client: Client, fake: FakeChorus) -> None:
    made = [client.files.push(b"x", name=f"{n}.tsv") for n in range(5)]
    assert [file.name for file in client.files.list()] == ["4.tsv", "3.tsv", "2.tsv", "1.tsv", "0.tsv"]
    assert client.files.page(limit=1).next_cursor is not None
    assert client.files.get(made[0]) == client.files.get(made[0].id) == made[0]
    client.files.delete(made[0])
    with pytest.raises(errors.NotFoundError) as raised:
        client.files.get(made[0].id)
    assert raised.value.code == "unknown_file"


# Jobs.


def test_starting_uploads_what_is_not_there_and_sends_the_document(
    client: Client, fake: FakeChorus, tmp_path: Path
) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes(TSV)
    test = client.files.push(b"x", name="report.tsv")
    fake.seen.clear()
    job = client.tuning.start(
        "sst2",
        train=path,
        validation=[{"text": "a", "label": "no"}],
        test=test,
        labels=("no", "yes"),
        target_texts={"0": "no"},
        recipe={"steps": 10},
        ensemble=5,
        data={"format": "tsv"},
    )
    assert isinstance(job, Job) and not job.over
    assert [(r.method, r.url.path) for r in fake.seen] == [
        ("POST", "/v1/files"),
        ("POST", "/v1/files"),
        ("POST", "/v1/tuning/jobs"),
    ]
    assert json.loads(fake.seen[-1].content) == {
        "task": "sst2",
        "data": {
            "format": "tsv",
            "train": {"file": f"file-{1:024x}"},
            "validation": {"file": f"file-{2:024x}"},
            "test": {"file": test.id},
        },
        "labels": ["no", "yes"],
        "target_texts": {"0": "no"},
        "recipe": {"steps": 10},
        "ensemble": 5,
    }


def test_the_keywords_of_0_1_0_are_still_taken(client: Client, fake: FakeChorus) -> None:
    file = "file-" + "a" * 24
    client.tuning.start("sst2", train=file, selection=file, report=file)  # type: ignore[call-arg]
    assert set(json.loads(fake.seen[-1].content)["data"]) == {"train", "validation", "test"}
    with pytest.raises(errors.InvalidArgumentError) as caught:
        client.tuning.start("sst2", train=file, test=file, report=file)  # type: ignore[call-arg]
    assert caught.value.field == "report"


@pytest.mark.parametrize(
    ("train", "source"),
    [
        ("file-" + "a" * 24, {"file": "file-" + "a" * 24}),
        ({"url": "https://example.org/a.tsv"}, {"url": "https://example.org/a.tsv"}),
        ({"path": "/data/a.tsv"}, {"path": "/data/a.tsv"}),
    ],
)
def test_what_is_on_the_server_is_named_only(
    client: Client, fake: FakeChorus, train: Any, source: Any
) -> None:
    client.tuning.start("t", train=train)
    assert len(fake.seen) == 1
    assert json.loads(fake.seen[-1].content)["data"] == {"train": source}


def test_a_document_is_sent_with_what_is_given_over_it(client: Client, fake: FakeChorus) -> None:
    whole = {
        "data": {"train": {"path": "/a"}, "format": "csv"},
        "recipe": {"steps": 5, "batch_size": 4},
        "prompts": [{"task": "a"}, {"task": "b"}],
        "seed": 1,
        "not_known_here": True,
    }
    client.tuning.start(document=whole, test={"path": "/b"}, recipe={"steps": 6}, seed=2)
    assert json.loads(fake.seen[-1].content) == whole | {
        "data": {"train": {"path": "/a"}, "format": "csv", "test": {"path": "/b"}},
        "recipe": {"steps": 6, "batch_size": 4},
        "seed": 2,
    }


@pytest.mark.parametrize("awaited", [False, True])
def test_a_refused_job_leaves_no_file_behind(fake: FakeChorus, awaited: bool) -> None:
    fake.tuning.refusal = refuse(400, "invalid_template", "It has no end.", "template")
    transport = httpx2.MockTransport(fake)

    async def start() -> None:
        async with AsyncClient(transport=transport) as client:
            await client.tuning.start("t", train=[{"a": 1}], test=[{"a": 1}], template="{a")

    with pytest.raises(errors.InvalidInputError) as raised:
        if awaited:
            asyncio.run(start())
        else:
            with Client(transport=transport) as client:
                client.tuning.start("t", train=[{"a": 1}], test=[{"a": 1}], template="{a")
    assert raised.value.field == "template"
    assert fake.tuning.records == {}
    assert [r.method for r in fake.seen] == ["POST", "POST", "POST", "DELETE", "DELETE"]


def test_a_bad_second_file_leaves_no_first_one_behind(client: Client, fake: FakeChorus) -> None:
    with pytest.raises(errors.InvalidArgumentError) as raised:
        client.tuning.start("t", train=[{"a": 1}], test="/nowhere")
    assert raised.value.field == "test" and fake.tuning.records == {}
    assert [r.method for r in fake.seen] == ["POST", "DELETE"]


def test_a_bad_source_names_its_argument(client: Client, fake: FakeChorus) -> None:
    for bad in ("/nowhere", {"paths": "x"}, 3):
        with pytest.raises(errors.InvalidArgumentError) as raised:
            client.tuning.start("t", train="file-" + "a" * 24, test=bad)  # type: ignore[arg-type]
        assert raised.value.field == "test"
    assert fake.seen == []


def test_jobs_are_listed_shown_cancelled_and_resumed(client: Client, fake: FakeChorus) -> None:
    jobs = [client.tuning.start(f"t{n}", train={"path": "/a"}) for n in range(5)]
    assert [job.id for job in client.tuning.list()] == [job.id for job in jobs][::-1]
    assert client.tuning.cancel(jobs[1]).status == "cancelled"
    assert [job.id for job in client.tuning.list(status="cancelled")] == [jobs[1].id]
    assert client.tuning.get(jobs[1].id).over
    with pytest.raises(errors.ConflictError) as raised:
        client.tuning.cancel(jobs[1].id)
    assert raised.value.code == "job_over"
    assert client.tuning.resume(jobs[1]).status == "queued"
    assert client.tuning.page(limit=1).next_cursor is not None


def test_past_events_come_page_after_page(client: Client, fake: FakeChorus) -> None:
    fake.tuning.script = steps(*range(2, 1203))
    job = client.tuning.start("t", train={"path": "/a"})
    fake.seen.clear()
    assert [event.seq for event in client.tuning.past_events(job, after=1)] == list(range(2, 1203))
    assert [r.url.params["after"] for r in fake.seen] == ["1", "501", "1001"]


def test_waiting_gives_the_job_as_it_ended(client: Client, fake: FakeChorus) -> None:
    fake.tuning.script = [*steps(2, 3), happened(4, "status", {"status": "failed"})]
    fake.tuning.error = {"code": "missing_column", "message": "Row 1 has no label."}
    ended = client.tuning.wait(client.tuning.start("t", train={"path": "/a"}))
    assert (ended.status, ended.succeeded, ended.over) == ("failed", False, True)
    assert ended.error is not None and ended.error["code"] == "missing_column"
