"""Reliability T3: refusing costs at most 100 ms (of processor time) and 64 MB, writes and runs nothing."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prompts_store.artifacts import ArtifactLimits, read_artifact
from prompts_store.errors import ArtifactError
from tests.faults.artifact_builders import LIMITS, VALUES, D, Member, adapter_zip, members, npy_file, zip_file
from tests.faults.artifact_refused import REFUSED
from tests.faults.artifact_refused_tensors import header_of
from tests.faults.artifact_refused_zips import bomb
from tests.memory import peak_bytes
from tests.places import IMPORTS, python_module

MOST_SECONDS = 0.1
MOST_BYTES = 64 * 10**6


def run_child(mode: str, folder: Path, scratch: Path) -> dict[str, Any]:
    """Read every file of `folder` in a process whose working and temporary folder is `scratch`."""
    scratch.mkdir()
    done = subprocess.run(
        [*python_module("tests.faults.artifact_child"), mode, str(folder)],
        cwd=scratch,
        env={**IMPORTS, "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        timeout=1200,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What reading the whole refuse corpus cost and touched."""
    folder = tmp_path_factory.mktemp("refused")
    for number, case in enumerate(REFUSED):
        (folder / f"{number:03}").write_bytes(case.build())
    scratch = tmp_path_factory.mktemp("run") / "scratch"
    found = run_child("ours", folder, scratch)
    found["left"] = [path.name for path in scratch.iterdir()]
    return found


def test_every_file_is_refused_for_its_reason_from_disk_too(report: dict[str, Any]) -> None:
    assert report["outcomes"] == {f"{i:03}": case.reason.value for i, case in enumerate(REFUSED)}


def test_refusing_is_quick(report: dict[str, Any]) -> None:
    name, seconds = report["slowest"]
    assert seconds <= MOST_SECONDS, REFUSED[int(name)].name


def test_refusing_needs_little_memory(report: dict[str, Any]) -> None:
    assert report["grown_bytes"] <= MOST_BYTES


def test_refusing_writes_and_runs_nothing(report: dict[str, Any]) -> None:
    assert report["events"] == []
    assert report["left"] == []


def wide_header() -> bytes:
    """A header of 8 MB that the library takes seriously."""
    entries = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(120_000)}
    text = json.dumps(entries, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text


def test_control_a_careless_reader_exceeds_time_memory_and_runs_the_code(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "wide").write_bytes(wide_header())
    (folder / "canary").write_bytes(canary_npy(tmp_path / "touched"))
    careless = run_child("naive", folder, tmp_path / "naive")
    assert careless["outcomes"]["wide"] == "accepted"
    assert careless["slowest"][1] > MOST_SECONDS
    assert careless["grown_bytes"] > MOST_BYTES
    assert any(event.startswith("pickle.find_class") for event in careless["events"])
    assert (tmp_path / "touched").exists()
    (tmp_path / "touched").rmdir()
    strict = run_child("ours", folder, tmp_path / "ours")
    assert strict["outcomes"] == {"wide": "header_too_large", "canary": "wrong_dtype"}
    assert not (tmp_path / "touched").exists()


def test_a_bomb_is_never_inflated() -> None:
    for data in (bomb(), bomb(claimed=200)):
        assert len(data) < 200_000
        assert peak_bytes(lambda data=data: refuse(data)) < 2_000_000


def test_control_zipfile_inflates_the_bomb() -> None:
    data = bomb()
    assert peak_bytes(lambda: zipfile.ZipFile(BytesIO(data)).read("adapter_model.safetensors")) > MOST_BYTES


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_largest_prompt_with_its_last_value_wrong_costs_less_than_two_of_it(dtype: str) -> None:
    limits = ArtifactLimits(width=4096, max_length=2048, compute_dtype="bfloat16")
    values = np.zeros((2**25 // int(dtype[1]) // 4096, 4096), dtype)
    values[-1, -1] = np.nan
    data = npy_file(values)
    del values

    def read() -> None:
        with pytest.raises(ArtifactError, match="column 4095 is NaN"):
            read_artifact(data, limits=limits)

    assert len(data) + peak_bytes(read) <= MOST_BYTES


def refuse(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        read_artifact(data, limits=LIMITS)


class Canary:
    """Unpickled, it creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def canary_npy(path: Path) -> bytes:
    pickled = pickle.dumps(np.array([Canary(path)], dtype=object), protocol=4)
    header = header_of(shape="(1,)", descr="'|O'")
    return npy_file(VALUES[:0], header=header) + pickled


def canary_zip(content: bytes) -> bytes:
    return zip_file([Member(b"archive/data.pkl", content), Member(b"archive/version", b"3\n")])


def canary_files(path: Path) -> dict[str, bytes]:
    """Every place where a reader might unpickle."""
    raw = {f"protocol {n}": pickle.dumps(Canary(path), n) for n in range(6)}
    pickled = raw["protocol 2"]
    return {
        **raw,
        "npy": canary_npy(path),
        "torch zip": canary_zip(pickled),
        "adapter_model.bin": zip_file([members()[0], Member(b"adapter_model.bin", canary_zip(pickled))]),
        "weights": adapter_zip(weights=pickled),
        "weights as torch zip": adapter_zip(weights=canary_zip(pickled)),
        "configuration": adapter_zip(config=pickled),
    }


def test_no_pickle_is_ever_read(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    for name, data in canary_files(touched).items():
        refuse(data)
        assert not touched.exists(), name


def test_a_pickle_among_ignored_files_is_not_read_either(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    extra = Member(b"optimizer.pt", pickle.dumps(Canary(touched), 2))
    assert read_artifact(zip_file([*members(), extra]), limits=LIMITS).values.shape[1] == D
    assert not touched.exists()


def test_control_the_canaries_sing(tmp_path: Path) -> None:
    for number in range(6):
        touched = tmp_path / f"touched{number}"
        pickle.loads(canary_files(touched)[f"protocol {number}"])  # noqa: S301 (the control: it must run)
        assert touched.exists()
