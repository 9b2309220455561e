"""Bad data at the level of a job: refused with a row number, or warned about in its events."""

from __future__ import annotations

import json
import logging
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chorus_server.tuning.document.job import JobDocument
from prompts_store.files.data_files import LocalFile
from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore
from tests.server.tuning.jobs.service_tools import (
    FINGERPRINT,
    TENANT,
    Watcher,
    document,
    events,
    finished,
    running,
    submit,
    upload,
)

GOOD = [{"text": f"ab{letter}", "label": "ny"[n % 2]} for n, letter in enumerate("abcdefghijkl")]


def lines(*rows: Any) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


CASES: list[tuple[str, str, bytes, dict[str, Any], str, str, str]] = [
    ("missing column", "a.jsonl", lines(*GOOD[:3], {"sentence": "a", "label": "n"}), {}, "invalid_data",
     "data.train", "row 4: there is no column 'text'"),
    ("missing column in a header", "a.csv", b"sentence,label\nab,n\n", {}, "invalid_data", "data.train",
     "row 1: there is no column 'text'"),
    ("empty split", "a.jsonl", b"", {}, "empty_split", "data.train", "has no rows"),
    ("a header only", "a.csv", b"text,label\n", {}, "empty_split", "data.train", "has no rows"),
    ("outside the labels", "a.jsonl", lines(*GOOD[:5], {"text": "ab", "label": "maybe"}), {},
     "unknown_label", "data.train", "row 6: the answer 'maybe'"),
    ("one class", "a.jsonl", lines(*[{**row, "label": "y"} for row in GOOD]), {}, "one_class", "data.train",
     "every row of the train split"),
    ("one class left after the cut", "a.jsonl", lines(*[{**row, "label": "y"} for row in GOOD], GOOD[0]),
     {"data": {"validation_rows": 12}}, "one_class", "data.validation_rows", "validation split"),
    ("wrong encoding", "a.jsonl", lines(*GOOD[:2], b'{"text": "caf\xe9", "label": "n"}\n'), {},
     "invalid_data", "data.train", "row 3: is not UTF-8"),
    ("UTF-16", "a.csv", "text,label\nab,n\n".encode("utf-16"), {}, "invalid_data", "data.train", "UTF-8"),
    ("a long row", "a.jsonl", lines(GOOD[0], {"text": "a" * 5000, "label": "n"}), {}, "invalid_data",
     "data.train", "row 2: is longer than 4096 bytes"),
    ("malformed", "a.jsonl", lines(GOOD[0], b"{oops\n"), {}, "invalid_data", "data.train",
     "row 2: is not a JSON"),
    ("unknown ending", "a.xml", b"<x/>", {}, "invalid_data", "data.train", "a.xml: has an unknown ending"),
    ("a long target", "a.jsonl", lines({"text": "ab", "label": "n"}, {"text": "cd", "label": "y" * 30}),
     {"labels": [], "data": {"validation_rows": 0}}, "target_too_long", "data.train",
     "row 2: the target has"),
    ("too few rows to cut", "a.jsonl", lines(GOOD[0], GOOD[1]), {"data": {"validation_rows": 2}},
     "empty_split", "data.validation_rows", "cannot take 2 of the 2"),
]  # fmt: skip


class NeverCompiles(Watcher):
    def __init__(self) -> None:
        super().__init__()
        self.after(self.compiles.seconds, self._fail)

    def _fail(self, *_: object) -> None:
        raise AssertionError("a program was compiled for data that is refused")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PromptStore, Path]]:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "allowed").mkdir()
    store = PromptStore.open(folder)
    with running(
        store, folder, watcher=NeverCompiles(), max_row_bytes=4096, data_paths=(folder / "allowed",)
    ):
        yield store, folder


def _job(store: PromptStore, source: dict[str, str], changes: dict[str, Any]) -> Job:
    data = {"train": source, "validation_rows": 2} | changes.pop("data", {})
    return finished(store, submit(store, document("", data=data, **changes)))


@pytest.mark.parametrize(("name", "content", "changes", "code", "field", "message"),
                         [case[1:] for case in CASES], ids=[case[0] for case in CASES])  # fmt: skip
def test_bad_data_is_refused_before_anything_is_compiled(
    bench: tuple[PromptStore, Path], name: str, content: bytes, changes: dict[str, Any], code: str,
    field: str, message: str,
) -> None:  # fmt: skip
    store, _ = bench
    job = _job(store, {"file": upload(store, content, name)}, dict(changes))
    assert job.status == "failed" and job.error is not None
    assert (job.error["code"], job.error["field"]) == (code, field), job.error
    assert message in job.error["message"], job.error
    kind, told = events(store, job)[-2]
    assert (kind, told["code"]) == ("failed", code)


class _DefectiveStore(PromptStore):
    """A store with a defect that only preparing a job meets."""

    def local_file(self, tenant: str, file_id: str) -> LocalFile:
        raise RuntimeError("a defect")


def test_a_job_with_bad_data_is_one_line_of_the_log(
    tmp_path: Path, compile_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sentence, whatever its owner called the columns. The control: a defect has its traceback."""
    store = PromptStore.open(tmp_path)
    data = {"train": {"file": upload(store, lines({"text": "a", "label": "n"}))}, "validation_rows": 0}
    odd = document("", data=data, target="label\nCRITICAL all is lost")
    with caplog.at_level(logging.INFO):
        with running(store, tmp_path, watcher=NeverCompiles()):
            job = finished(store, submit(store, odd))
        told = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.levelname for record in told] == ["WARNING"] and told[0].exc_info is None
        line = told[0].getMessage()
        assert line.startswith(f"{job.id} failed: invalid_data in data.train: row 1: there is no column")
        assert len(line.splitlines()) == 1
        assert not [record for record in caplog.records if record.exc_info], "no traceback anywhere"
        broken = _DefectiveStore.open(tmp_path)
        with running(broken, tmp_path, watcher=NeverCompiles()):
            defect = finished(broken, submit(broken, document("", data=data)))
    assert defect.error is not None and defect.error["code"] == "internal"
    assert [record for record in caplog.records if record.exc_info and defect.id in record.getMessage()]


def test_a_bad_split_of_the_second_prompt_is_named(bench: tuple[PromptStore, Path]) -> None:
    store, _ = bench
    good, bad = upload(store, lines(*GOOD)), upload(store, lines(GOOD[0], {"text": "a"}))
    sent = document(good, prompts=[{}, {"task": "two", "data": {"train": {"file": bad}}}])
    job = finished(store, submit(store, sent))
    assert job.error is not None and job.error["field"] == "prompts.1.data.train"
    assert "row 2" in job.error["message"]


def test_one_line_of_two_gigabytes_costs_a_buffer(bench: tuple[PromptStore, Path]) -> None:
    store, folder = bench
    path = folder / "allowed" / "huge.jsonl"
    with path.open("wb") as file:
        file.write(lines(GOOD[0]))
        file.truncate(2 << 30)  # sparse: the rest is one line of zeros
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    job = _job(store, {"path": str(path)}, {})
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    path.unlink()
    assert job.error is not None and "row 2: is longer than 4096 bytes" in job.error["message"]
    # Of a line of 2 GiB; the first job of a process imports what it reads with, and others may be busy.
    assert grown < 512 << 20, "the line was never held"


def test_what_is_not_allowed_is_no_data(bench: tuple[PromptStore, Path]) -> None:
    store, folder = bench
    (folder / "outside.jsonl").write_bytes(lines(*GOOD))
    job = _job(store, {"path": str(folder / "outside.jsonl")}, {})
    assert job.error is not None and job.error["code"] == "data_not_allowed"
    assert job.error["field"] == "data.train.path"
    url = _job(store, {"url": "http://127.0.0.1:1/x.csv"}, {})
    assert url.error is not None and url.error["code"] == "data_not_allowed"


def test_an_upload_of_another_tenant_is_not_there(bench: tuple[PromptStore, Path]) -> None:
    """The store refuses such a job; a runner that got one all the same does not read the file."""
    store, _ = bench
    foreign = upload(store, lines(*GOOD), tenant="other")
    spec = JobDocument.from_json(document(foreign)).for_base(FINGERPRINT)
    job = finished(store, store.create_job(TENANT, "tuning", spec.to_json()))
    assert job.error is not None and job.error["code"] == "unknown_file"


def test_copies_and_contradictions_are_warned_about(tmp_path: Path, compile_cache: Path) -> None:
    store = PromptStore.open(tmp_path)
    twice = [*GOOD, GOOD[0], GOOD[1], {"text": GOOD[2]["text"], "label": "y"}]
    train, validation = upload(store, lines(*twice)), upload(store, lines(GOOD[3], GOOD[4]))
    data = {"train": {"file": train}, "validation": {"file": validation}}
    job = submit(store, document(train, data=data))
    with running(store, tmp_path):
        assert finished(store, job).status == "succeeded"
    warned = [data["message"] for kind, data in events(store, job) if kind == "warning"]
    for words in ("rows 13, 14", "another answer", "are in train too"):
        assert any(words in each for each in warned), warned
    # The control: good data is not warned about.
    file = upload(store, lines(*GOOD))
    good = submit(store, document(file, data={"train": {"file": file}, "validation_rows": 2}))
    with running(store, tmp_path):
        assert finished(store, good).status == "succeeded"
    warned = [data["message"] for kind, data in events(store, good) if kind == "warning"]
    assert not [each for each in warned if "copies" in each or "another answer" in each]
