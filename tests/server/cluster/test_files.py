"""Which files of a folder are answered already, and what is refused before any is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from chorus_server.cluster.files import QUESTION, FileSets
from chorus_server.cluster.questions import RowQuestion
from chorus_server.errors import InvalidInputError
from chorus_server.settings import Settings

ASKED = RowQuestion("/v1/generate", {"task": "sentiment"}, "text")


@pytest.fixture
def sets(tmp_path: Path) -> FileSets:
    for name in ("b.parquet", "a/c.parquet", "a/notes.txt", "_old/d.parquet", ".e.parquet"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"rows")
    return FileSets(f"file://{tmp_path}/in", f"file://{tmp_path}/out")


def begin(sets: FileSets, question: RowQuestion = ASKED, **settings: Any) -> tuple[list[str], list[str]]:
    return sets.begin(Settings(**settings), question)


def test_a_file_is_done_once_it_is_in_the_target_and_newer(sets: FileSets, tmp_path: Path) -> None:
    assert begin(sets) == (["a/c.parquet", "b.parquet"], [])
    (tmp_path / "out" / "b.parquet").write_bytes(b"answers")
    assert begin(sets) == (["a/c.parquet"], ["b.parquet"])
    seconds = (tmp_path / "out" / "b.parquet").stat().st_mtime + 1
    os.utime(tmp_path / "in" / "b.parquet", (seconds, seconds))  # the source was written again
    assert begin(sets) == (["a/c.parquet", "b.parquet"], [])


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
        ("file://{0}/in", "s3://bucket/out", "blob_endpoint"),
    ],
)
def test_what_cannot_be_read_or_written_is_refused(
    sets: FileSets, tmp_path: Path, source: str, target: str, field: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError) as caught:
        begin(
            FileSets(source.format(tmp_path), target.format(tmp_path)), blob_endpoint="http://user@127.0.0.1"
        )
    assert caught.value.field == field
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
