"""Files answered in this process, as an actor does it; Ray itself is in test_dataset_tiny.py."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chorus_server.cluster import rows
from chorus_server.cluster.dataset import FileAnswers
from chorus_server.cluster.files import MOST_ATTEMPTS, FileSets, answered_files, attempted, bucket_of
from chorus_server.cluster.questions import RowQuestion
from chorus_server.errors import ConflictError
from chorus_server.settings import Settings
from prompts_store.errors import StoreError
from tests.server.api.api_harness import ApiServer

RUN = 1
QUESTION = {"endpoint": "/v1/generate", "body": {"task": "sentiment"}, "input": "text"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def sets(source: Path, tmp_path: Path) -> FileSets:
    return FileSets(f"file://{source}", f"file://{tmp_path}/out")


@pytest.fixture
def answer(beside: ApiServer, sets: FileSets) -> Callable[..., list[dict[str, Any]]]:
    """Answers files, and says what came of each."""

    def answer(*paths: str) -> list[dict[str, Any]]:
        actor = FileAnswers(
            sets.source, sets.target, RUN, settings={"data_dir": beside.settings.data_dir}, **QUESTION
        )
        return [row for table in actor(pa.table({"path": paths})) for row in table.to_pylist()]

    return answer


def left(sets: FileSets) -> list[str]:
    """What is not answered."""
    found, target = sets.begin(Settings(), RowQuestion(**QUESTION))  # type: ignore[arg-type]
    return sorted(found.keys() - set(answered_files(found, target)))


def put(source: Path, name: str, texts: list[str] = ["good film"]) -> None:  # noqa: B006
    pq.write_table(pa.table({"text": texts}), source / name)


def test_a_bad_file_is_reported_and_others_go_on(
    source: Path, sets: FileSets, answer: Callable[..., list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """The log has no word of what is in it."""
    pq.write_table(pa.table({"text": [b"secret"]}), source / "binary.parquet")
    pq.write_table(pa.table([["secret"], ["b"]], names=["text", "text"]), source / "twice.parquet")
    pq.write_table(pa.table({"secret": ["a"]}), source / "other.parquet")
    (source / "broken.parquet").write_bytes(b"secret")
    put(source, "good.parquet")
    assert len(left(sets)) == 5
    with caplog.at_level(logging.WARNING, "chorus.cluster"):
        *bad, gone, good = answer(
            *(f"{name}.parquet" for name in ("binary", "twice", "other", "broken", "gone", "good"))
        )
    for file, said in zip(bad, ("must be text", "two columns", "there are secret", "Parquet"), strict=True):
        assert said in file["error"] and file["rows"] == 0
    assert "gone" in gone["error"]
    assert (good["error"], good["rows"], good["failed"]) == (None, 1, 0)
    assert left(sets) == ["binary.parquet", "broken.parquet", "other.parquet", "twice.parquet"]
    assert len(caplog.records) == 5 and "secret" not in caplog.text


def test_a_file_that_ended_its_processes_is_reported_and_others_go_on(
    source: Path, sets: FileSets, answer: Callable[..., list[Any]]
) -> None:
    put(source, "a.parquet")
    put(source, "b.parquet")
    target = bucket_of(Settings(), sets.target, "target")
    ended = [attempted(target, "a.parquet", RUN) for _ in range(MOST_ATTEMPTS)]
    for each in ended:
        each.__enter__()
    poison, good = answer("a.parquet", "b.parquet")
    assert "processes ended" in poison["error"] and good["error"] is None
    assert left(sets) == ["a.parquet"]
    (found,) = answer("a.parquet")  # which begins to count anew
    assert found["error"] is None


def test_an_error_that_is_no_rows_own_is_the_files(
    source: Path, sets: FileSets, answer: Callable[..., list[Any]], server: ApiServer
) -> None:
    put(source, "a.parquet", ["good film", "word " * 500])
    (found,) = answer("a.parquet")
    assert (found["error"], found["failed"]) == (None, 1), "control: too long is the row's own"
    assert left(sets) == []
    put(source, "b.parquet")
    honest = rows.answer_lines

    async def deleted_meanwhile(*arguments: Any) -> Any:
        services = server.services
        await services.library.write(services.library.store.delete_task, "default", "sentiment")
        await services.changes.read()
        return await honest(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "answer_lines", deleted_meanwhile)
        (found,) = answer("b.parquet")
    assert "sentiment" in found["error"] and left(sets) == ["b.parquet"]


@pytest.mark.parametrize("moment", ["asked", "put"])
def test_a_file_that_is_written_meanwhile_is_answered_again(
    source: Path,
    sets: FileSets,
    answer: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    put(source, "a.parquet")
    with monkeypatch.context() as patch:
        if moment == "asked":
            honest: Any = rows.answer_lines

            async def asked(*arguments: Any) -> Any:
                put(source, "a.parquet", ["bad movie"])
                return await honest(*arguments)

            patch.setattr(rows, "answer_lines", asked)
        else:
            from prompts_store.blobs.bucket import Bucket

            honest = Bucket.put_file

            def sent(bucket: Bucket, key: str, path: Path) -> None:
                put(source, "a.parquet", ["bad movie"])
                honest(bucket, key, path)  # its time is after the source's

            patch.setattr(Bucket, "put_file", sent)
        (found,) = answer("a.parquet")
    assert "was written" in found["error"] and left(sets) == ["a.parquet"]
    assert (source.parent / "out" / "a.parquet").exists() is (moment == "put")
    (found,) = answer("a.parquet")
    assert found["error"] is None and left(sets) == []


def test_a_file_that_is_written_while_it_is_read_does_not_end_the_run(
    source: Path, answer: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that does not answer does."""
    put(source, "b.parquet")
    with (source / "a.parquet").open("wb") as opened:
        opened.truncate((8 << 20) + 1)
    monkeypatch.setattr("chorus_server.cluster.dataset.fetch", rewritten_while(source))
    changed, good = answer("a.parquet", "b.parquet")
    assert "written while it was read" in changed["error"] and good["error"] is None

    def away(*_: Any) -> Any:
        raise StoreError("away")

    monkeypatch.setattr("chorus_server.cluster.dataset.fetch", away)
    with pytest.raises(StoreError, match="away"):
        answer("b.parquet")


def rewritten_while(source: Path) -> Callable[..., str]:
    """`fetch`, of a source that is written after its first part was read."""
    from chorus_server.cluster.files import fetch
    from prompts_store.blobs.bucket import Bucket

    class Rewritten(Bucket):
        def parts(self, key: str, *, one_version: bool = False) -> Any:
            for part in super().parts(key, one_version=one_version):
                yield part
                if key == "a.parquet":
                    (source / key).write_bytes(b"n" * ((8 << 20) + 1))

    return lambda bucket, path, to: fetch(Rewritten(bucket._objects, "in"), path, to)


def test_an_actor_of_a_run_that_lost_the_target_writes_nothing(
    source: Path, sets: FileSets, answer: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(source, "a.parquet")
    put(source, "b.parquet")
    target = bucket_of(Settings(), sets.target, "target")
    honest: Any = rows.answer_lines

    async def taken_meanwhile(*arguments: Any) -> Any:
        target.put(f"_runs/{RUN + 1}.json", b"")
        return await honest(*arguments)

    monkeypatch.setattr(rows, "answer_lines", taken_meanwhile)
    (found,) = answer("a.parquet")
    assert "Another run" in found["error"]
    with pytest.raises(ConflictError):
        answer("b.parquet")
    assert left(sets) == ["a.parquet", "b.parquet"]
