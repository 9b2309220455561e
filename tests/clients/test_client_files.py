"""Reading what is uploaded, and writing what is downloaded."""

from __future__ import annotations

import array
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus import Client, InvalidArgumentError, UnexpectedAnswerError, saving
from chorus.artifacts import PEFT_CONFIG, PEFT_PICKLE, PEFT_WEIGHTS, read_artifact
from tests.clients.fake_chorus import FakeChorus


@given(st.integers(1, 5), st.integers(1, 7), st.sampled_from(["<f4", "<f8"]), st.booleans(), st.booleans())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_arrays_become_npy_files(rows: int, columns: int, kind: str, fortran: bool, strided: bool) -> None:
    values = np.random.default_rng(rows * columns).normal(size=(rows, columns)).astype(kind)
    if strided:
        values = np.repeat(values, 2, axis=1)[:, ::2]
    if fortran:
        values = np.asfortranarray(values)
    artifact = read_artifact(values)
    loaded = np.load(io.BytesIO(artifact.content), allow_pickle=False)
    assert artifact.filename == "prompt.npy"
    assert loaded.dtype == np.dtype(kind)
    assert loaded.tobytes() == values.tobytes()
    assert len(artifact.content) - values.nbytes == 128, "the data begins at a multiple of 64"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (np.zeros((2, 3), np.int32), "float32"),
        (np.zeros((2, 3), np.float16), "float32"),
        (np.zeros((2, 3), ">f4"), "float32"),
        (np.zeros(3, np.float32), "1 axes"),
        (np.zeros((1, 2, 3), np.float32), "3 axes"),
        (array.array("f", [1.0]), "1 axes"),
        ([[1.0, 2.0]], "list"),
        (None, "NoneType"),
        (3, "int"),
    ],
)
def test_what_is_no_prompt(source: object, why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=why) as raised:
        read_artifact(source)
    assert raised.value.field == "artifact"


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_bytes_are_a_file_already(wrap: type) -> None:
    assert read_artifact(wrap(b"\x93NUMPY")).content == b"\x93NUMPY"


def test_files_keep_their_name(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"abc")
    assert read_artifact(str(tmp_path / "a.safetensors")) == read_artifact(tmp_path / "a.safetensors")
    assert read_artifact(tmp_path / "a.safetensors").filename == "a.safetensors"
    with pytest.raises(InvalidArgumentError, match="No such file"):
        read_artifact(tmp_path / "b.npy")


def peft_folder(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_peft_folder_is_zipped_the_same_each_time(tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "adapter", PEFT_CONFIG, PEFT_WEIGHTS, "README.md", PEFT_PICKLE)
    artifact = read_artifact(folder)
    os.utime(folder / PEFT_CONFIG, (10**9, 10**9))
    assert read_artifact(folder) == artifact
    assert artifact.filename == "adapter.zip"
    with zipfile.ZipFile(io.BytesIO(artifact.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            PEFT_CONFIG: PEFT_CONFIG.encode(),
            PEFT_WEIGHTS: PEFT_WEIGHTS.encode(),
        }


def test_folders_that_are_not_peft(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=PEFT_CONFIG):
        read_artifact(peft_folder(tmp_path / "empty"))
    with pytest.raises(InvalidArgumentError, match="pickle"):
        read_artifact(peft_folder(tmp_path / "pickled", PEFT_CONFIG, PEFT_PICKLE))
    with pytest.raises(InvalidArgumentError, match="no weights"):
        read_artifact(peft_folder(tmp_path / "bare", PEFT_CONFIG))


def test_pull_writes_the_bytes(client: Client, fake: FakeChorus, tmp_path: Path) -> None:
    client.tasks.push("a", b"one")
    client.tasks.push("a", b"two")
    target = tmp_path / "prompt.npy"
    assert client.tasks.pull("a", target, format="npy") == target
    assert target.read_bytes() == b"one"
    assert fake.seen[-1].url.query == b"format=npy"
    client.tasks.pull("a@2", target)
    assert target.read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["prompt.npy"]


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.npy", "npy"), ("a.safetensors", "safetensors"), ("a.zip", "peft"), ("a", "safetensors")],
)
def test_pull_follows_the_ending(
    client: Client, fake: FakeChorus, tmp_path: Path, name: str, format: str
) -> None:
    client.tasks.push("a", b"one")
    client.tasks.pull("a", tmp_path / name)
    assert fake.seen[-1].url.query == f"format={format}".encode()


def test_pull_asks_nothing_when_it_could_not_save(client: Client, fake: FakeChorus, tmp_path: Path) -> None:
    client.tasks.push("a", b"one")
    fake.seen.clear()
    with pytest.raises(InvalidArgumentError, match="absent"):
        client.tasks.pull("a", tmp_path / "absent" / "x.npy")
    with pytest.raises(InvalidArgumentError, match="format"):
        client.tasks.artifact("a", 1, format="pickle")  # type: ignore[arg-type]
    assert fake.seen == []


def naive_write(path: Path, content: bytes) -> Path:
    """What write_file must not be: the control."""
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
        os.fsync(file.fileno())
        file.write(content[len(content) // 2 :])
    return path


@pytest.mark.parametrize(("write", "survives"), [(saving.write_file, True), (naive_write, False)])
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object, survives: bool
) -> None:
    target = tmp_path / "prompt.npy"
    target.write_bytes(b"old content")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises((InvalidArgumentError, OSError)):
        write(target, b"new content")  # type: ignore[operator]
    assert (target.read_bytes() == b"old content") is survives
    assert [path.name for path in tmp_path.iterdir()] == ["prompt.npy"]


def test_a_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    saving.write_file(tmp_path / "saved", b"")
    assert (tmp_path / "saved").stat().st_mode == (tmp_path / "plain").stat().st_mode


def zipped(**files: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def test_peft_is_saved_as_a_folder_or_a_zip(client: Client, tmp_path: Path) -> None:
    archive = zipped(**{PEFT_CONFIG: b"{}", PEFT_WEIGHTS: b"weights"})
    client.tasks.push("a", archive)
    client.tasks.pull("a", tmp_path / "a.zip", format="peft")
    assert (tmp_path / "a.zip").read_bytes() == archive
    client.tasks.pull("a", tmp_path / "adapter", format="peft")
    assert (tmp_path / "adapter" / PEFT_WEIGHTS).read_bytes() == b"weights"
    with pytest.raises(InvalidArgumentError, match="exists already"):
        client.tasks.pull("a", tmp_path / "adapter", format="peft")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "adapter"]


@pytest.mark.parametrize(
    "archive",
    [b"no zip", zipped(**{"../evil": b"x", PEFT_CONFIG: b"{}"}), zipped(**{PEFT_CONFIG: b"{}"}), zipped()],
)
def test_odd_zips_are_not_unpacked(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(UnexpectedAnswerError):
        saving.write_peft_folder(tmp_path / "adapter", archive)
    assert list(tmp_path.iterdir()) == []
