"""Which files of a folder are answered already, and what is refused before any is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chorus_server.cluster import files
from chorus_server.cluster.files import (
    MOST_ATTEMPTS,
    QUESTION,
    SOURCE,
    FileSets,
    answered_files,
    attempted,
    bucket_of,
)
from chorus_server.cluster.questions import RowQuestion
from chorus_server.errors import InvalidInputError
from chorus_server.settings import Settings
from prompts_store.blobs.bucket import Bucket

ASKED = RowQuestion("/v1/generate", {"task": "sentiment"}, "text")


@pytest.fixture
def sets(tmp_path: Path) -> FileSets:
    for name in ("b.parquet", "a/c.parquet", "a/notes.txt", "_old/d.parquet", ".e.parquet"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"rows")
    return FileSets(f"file://{tmp_path}/in", f"file://{tmp_path}/out")


def begin(sets: FileSets, question: RowQuestion = ASKED, **settings: Any) -> tuple[list[str], list[str]]:
    """What is to be answered, and what is."""
    found, target = sets.begin(Settings(**settings), question)
    done = answered_files(found, target)
    return sorted(found.keys() - set(done)), done


def answer(sets: FileSets, name: str, rows: int = 1) -> None:
    """Put a file that answers its source as it is now."""
    version = bucket_of(Settings(), sets.source, "source").version(name)
    table = pa.table({"n": range(rows)}).replace_schema_metadata({SOURCE: version})
    with pq.ParquetWriter(Path(sets.target.removeprefix("file://")) / name, table.schema) as writer:
        writer.write_table(table, row_group_size=1)


def test_a_file_is_done_once_it_answers_its_source_as_it_is(sets: FileSets, tmp_path: Path) -> None:
    todo = ["a/c.parquet", "b.parquet"]
    source, target = tmp_path / "in" / "b.parquet", tmp_path / "out" / "b.parquet"
    assert begin(sets) == (todo, [])
    for content in (b"", b"no Parquet", b"PAR1" * 9):  # and newer than its source
        target.write_bytes(content)
        assert begin(sets) == (todo, [])
    for rows in (1, 1000):  # whose footer is more than what is read at first
        answer(sets, "b.parquet", rows)
        assert begin(sets) == (["a/c.parquet"], ["b.parquet"])
    other = tmp_path / "other"
    other.write_bytes(b"ROWS")
    os.utime(other, (1, 1))
    other.replace(source)  # older than its answers, as after mv, cp -p or rsync
    assert begin(sets) == (todo, [])
    answer(sets, "b.parquet")
    assert begin(sets) == (["a/c.parquet"], ["b.parquet"])
    source.write_bytes(b"rows")
    os.utime(source, (2, 2))
    assert begin(sets) == (todo, [])


def test_a_file_that_ends_its_processes_is_given_up(sets: FileSets, tmp_path: Path) -> None:
    """One that ends in order is not counted."""
    target, path = bucket_of(Settings(), sets.target, "target"), "a/c.parquet"
    for _ in range(MOST_ATTEMPTS + 1):
        with attempted(target, path, 1):
            pass
    killed = [attempted(target, path, 2) for _ in range(MOST_ATTEMPTS)]
    for each in killed:
        each.__enter__()  # and the process is gone
    with attempted(target, "b.parquet", 2):
        pass
    with pytest.raises(InvalidInputError, match=f"{MOST_ATTEMPTS} processes"), attempted(target, path, 2):
        pass
    again = [attempted(target, path, run) for run in (2, 3, 3)]  # begins anew
    for each in again:
        each.__enter__()
    assert not [name for name, _ in target.versions() if not name.startswith("_")]


def test_a_target_has_answers_to_one_question(sets: FileSets, tmp_path: Path) -> None:
    begin(sets)
    with pytest.raises(InvalidInputError, match=QUESTION) as caught:
        begin(sets, RowQuestion("/v1/generate", {"task": "sentiment@2"}, "text"))
    assert caught.value.field == "target"
    assert begin(sets)[1] == []


@pytest.mark.parametrize(
    ("source", "target", "field"),
    [
        ("file:///no-such-folder-here", "file://{0}/out", "source"),
        ("file://{0}/empty", "file://{0}/out", "source"),
        ("in", "file://{0}/out", "source"),
        ("file://{0}/in", "ftp://host/out", "target"),
        ("file://{0}/in", "file://{0}/in/", "target"),
        ("file://{0}/in", "file://{0}/in/answered", "target"),
        ("file://{0}/in", "s3://bucket/out?endpoint=http://user@127.0.0.1", "target"),
        ("s3://bucket/in?region=here", "s3://bucket/in/out", "target"),
        (
            "s3://bucket/in?endpoint=https://One:9000/",
            "s3://bucket/in/out?endpoint=https://one:9000",
            "target",
        ),
        ("file://{0}/in", "file://{0}/other/../%69n/answered", "target"),
    ],
)
def test_what_cannot_be_read_or_written_is_refused(
    sets: FileSets, tmp_path: Path, source: str, target: str, field: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError) as caught:
        begin(FileSets(source.format(tmp_path), target.format(tmp_path)))
    assert caught.value.field == field
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_bucket_of_another_endpoint_is_another_place(tmp_path: Path) -> None:
    """Also where only the store's URL names one. The control is above: of one endpoint they are refused."""
    there, store = "https://there:9000", Settings(blob_url="s3://store?endpoint=https://here:9000")

    def bucket(settings: Settings, url: str, field: str) -> Bucket:
        folder = tmp_path / field
        folder.mkdir(exist_ok=True)
        return bucket_of(Settings(), f"file://{folder}", field)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "bucket_of", bucket)
        for settings, source, target in (
            (Settings(), f"s3://rows/in?endpoint={there}", "s3://rows/in"),
            (store, "s3://rows/in", f"s3://rows/in/out?endpoint={there}"),
        ):
            with pytest.raises(InvalidInputError) as caught:
                FileSets(source, target).begin(settings, ASKED)
            assert caught.value.field == "source"  # there are no files in it: it was looked into
        (tmp_path / "source" / "a.parquet").write_bytes(b"rows")
        FileSets("s3://rows/in", "s3://rows/out").begin(store, ASKED)
        for settings, source in ((Settings(), "s3://rows/in"), (store, f"s3://rows/in?endpoint={there}")):
            with pytest.raises(InvalidInputError, match="another source"):
                FileSets(source, "s3://rows/out").begin(settings, ASKED)
        FileSets("s3://rows/in/?endpoint=https://here:9000", "s3://rows/out").begin(Settings(), ASKED)
