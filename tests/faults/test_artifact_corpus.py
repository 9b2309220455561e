"""Reliability T3: what must be read is read to the bit, what must be refused is refused for its own
reason."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from prompts_store.artifacts import FORMATS, REASONS, Reason, read_artifact, write_artifact
from prompts_store.errors import ArtifactError
from tests.faults.artifact_accepted import ACCEPTED, Accepted
from tests.faults.artifact_builders import (
    FIXTURES,
    LIMITS,
    VALUES,
    Refused,
    config_file,
    npy_file,
    safetensors_file,
    weights_file,
)
from tests.faults.artifact_refused import REFUSED

ONLY_ON_DISK = {Reason.FILE_UNREADABLE}


def test_the_corpora_are_as_large_as_promised_and_every_reason_occurs() -> None:
    assert len(ACCEPTED) >= 20
    assert len(REFUSED) >= 60
    assert len({case.name for case in (*ACCEPTED, *REFUSED)}) == len(ACCEPTED) + len(REFUSED)
    assert {case.reason for case in REFUSED} == set(REASONS) - ONLY_ON_DISK


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_accepted(case: Accepted) -> None:
    artifact = read_artifact(case.build(), limits=LIMITS)
    assert artifact.values.tobytes() == case.values.tobytes()
    assert artifact.values.shape == case.values.shape
    assert (artifact.format, len(artifact.notes)) == (case.format, case.notes)
    assert artifact.values.dtype == np.float32
    assert artifact.values.flags.c_contiguous and not artifact.values.flags.writeable


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_accepted_round_trips_in_every_format(case: Accepted, format: str) -> None:
    first = read_artifact(case.build(), limits=LIMITS)
    second = read_artifact(write_artifact(first.values, format), limits=LIMITS)
    assert second.values.tobytes() == first.values.tobytes()
    assert second.digest == first.digest
    assert not second.notes


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_refused(case: Refused) -> None:
    with pytest.raises(ArtifactError) as caught:
        read_artifact(case.build(), limits=LIMITS)
    assert caught.value.code == case.reason.value
    assert case.says in caught.value.message
    assert caught.value.field == "file"


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_messages_are_short_printable_sentences(case: Refused) -> None:
    with pytest.raises(ArtifactError) as caught:
        read_artifact(case.build(), limits=LIMITS)
    message = caught.value.message
    assert message.isascii() and message.isprintable() and len(message) < 400
    assert message[-1] in ".;" or "zip -j" in message


def test_control_the_library_accepts_what_we_refuse() -> None:
    """Without the strict header, these would be served: the corpus bites."""
    wrongly = {case.name for case in REFUSED if case.build()[8:9] == b"{" and _library_reads(case.build())}
    assert {"header twice", "name with ..", "name with NUL", "NaN", "extra tensor"} <= wrongly
    assert len(wrongly) >= 15


def _library_reads(data: bytes) -> bool:
    try:
        safetensors.numpy.load(data)
    except Exception:
        return False
    return True


def test_a_value_that_overflows_bfloat16_is_legal_in_float32() -> None:
    limits = dataclasses.replace(LIMITS, compute_dtype="float32")
    values = np.full((1, 6), 3.4e38, np.float32)
    assert read_artifact(safetensors_file(values), limits=limits).values.tobytes() == values.tobytes()


def folder_of(path: Path, **files: bytes) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name.replace("__", ".")).write_bytes(content)
    return path


def linked_file(path: Path) -> Path:
    (path / "real").write_bytes(npy_file())
    (path / "link.npy").symlink_to(path / "real")
    return path / "link.npy"


def linked_folder(path: Path) -> Path:
    folder_of(path / "real", adapter_config__json=config_file(), adapter_model__safetensors=weights_file())
    (path / "link").symlink_to(path / "real")
    return path / "link"


def folder_with_link(path: Path) -> Path:
    (path / "secret").write_bytes(weights_file())
    folder = folder_of(path / "adapter", adapter_config__json=config_file())
    (folder / "adapter_model.safetensors").symlink_to(path / "secret")
    return folder


def pipe(path: Path) -> Path:
    os.mkfifo(path / "pipe")
    return path / "pipe"


def unix_socket(path: Path) -> Path:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path / "s"))
    server.close()
    return path / "s"


def large_file(path: Path) -> Path:
    with (path / "sparse").open("wb") as file:
        file.truncate(10 * 2**40)
    return path / "sparse"


def large_configuration(path: Path) -> Path:
    return folder_of(
        path / "a", adapter_config__json=b" " * 70_000, adapter_model__safetensors=weights_file()
    )


def pickled_folder(path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "peft_bin", path / "adapter"))


ON_DISK: tuple[tuple[Callable[[Path], Path], Reason], ...] = (
    (linked_file, Reason.SYMLINK),
    (linked_folder, Reason.SYMLINK),
    (folder_with_link, Reason.SYMLINK),
    (pipe, Reason.FILE_UNREADABLE),
    (unix_socket, Reason.FILE_UNREADABLE),
    (lambda path: path / "absent", Reason.FILE_UNREADABLE),
    (lambda path: path / "nul\0", Reason.FILE_UNREADABLE),
    (large_file, Reason.FILE_TOO_LARGE),
    (large_configuration, Reason.FILE_TOO_LARGE),
    (pickled_folder, Reason.PEFT_PICKLE),
    (lambda path: folder_of(path / "a"), Reason.PEFT_CONFIG_MISSING),
    (lambda path: folder_of(path / "a", adapter_config__json=config_file()), Reason.PEFT_WEIGHTS_MISSING),
)


@pytest.mark.parametrize(("make", "reason"), ON_DISK)
def test_refused_on_disk(make: Callable[[Path], Path], reason: Reason, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        read_artifact(make(tmp_path), limits=LIMITS)
    assert caught.value.code == reason.value


def test_files_and_folders_are_read_as_bytes_are(tmp_path: Path) -> None:
    (tmp_path / "prompt.npy").write_bytes(npy_file())
    adapter = folder_of(
        tmp_path / "adapter",
        adapter_config__json=config_file(),
        adapter_model__safetensors=weights_file(),
        README__md=b"# A prompt",
    )
    for path in (tmp_path / "prompt.npy", adapter):
        assert read_artifact(path, limits=LIMITS).values.tobytes() == VALUES.tobytes()


def test_refusing_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number, (make, _) in enumerate(ON_DISK):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(ArtifactError):
            read_artifact(make(folder), limits=LIMITS)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before  # an earlier test's may be closed meanwhile
