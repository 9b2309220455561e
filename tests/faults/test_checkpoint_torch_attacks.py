"""Torch files made to hurt whoever opens them: each is refused, nothing runs, nothing grows."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.torch.restricted_pickle import read_state_dict
from chorus_server.model.checkpoints.torch_reader import read_torch_file
from tests.faults.torch_attacks import (
    FLOATS,
    naive_load,
    pickles,
    state_dict,
    storage,
    tensor,
    torch_zip,
    zips,
)
from tests.places import FIXTURES

PICKLES = sorted(pickles(Path("unused")))


@pytest.mark.parametrize("attack", PICKLES)
def test_hostile_pickle_is_refused_and_not_run(tmp_path: Path, attack: str) -> None:
    marker = tmp_path / "executed"
    path = torch_zip(tmp_path / "model.bin", pickles(marker)[attack])
    with pytest.raises(InvalidModelError) as caught:
        read_torch_file(path)
    assert caught.value.code == "refused_torch_file"
    assert len(caught.value.message) < 300
    assert not marker.exists()


def test_pickle_bombs_cost_little_memory(tmp_path: Path) -> None:
    bombs = pickles(tmp_path / "executed")
    tracemalloc.start()
    try:
        for name in ("memo bomb", "many operations", "huge pickle", "deep nesting"):
            tracemalloc.reset_peak()
            with pytest.raises(InvalidModelError):
                read_state_dict(bombs[name])
            assert tracemalloc.get_traced_memory()[1] < 200_000_000, name
    finally:
        tracemalloc.stop()


def test_control_a_careless_reader_runs_the_same_file(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    for attack in ("os.system", "os.system, protocol 4", "builtins.eval"):
        naive_load(torch_zip(tmp_path / "model.bin", pickles(marker)[attack]))
        assert marker.exists(), attack
        marker.unlink()


def test_hostile_containers_are_refused(tmp_path: Path) -> None:
    for name, path in zips(tmp_path).items():
        with pytest.raises(InvalidModelError) as caught:
            read_torch_file(path)
        assert caught.value.code == "refused_torch_file", name


def test_legacy_formats_are_refused_by_name(tmp_path: Path) -> None:
    files = zips(tmp_path)
    with pytest.raises(InvalidModelError, match="legacy tar format"):
        read_torch_file(files["legacy tar"])
    with pytest.raises(InvalidModelError, match=r"legacy format from before 1\.6"):
        read_torch_file(files["legacy pickle"])
    legacy = FIXTURES / "checkpoints" / "legacy.bin"
    with pytest.raises(InvalidModelError, match=r"legacy format from before 1\.6"):
        read_torch_file(legacy)


def test_control_the_honest_file_is_read(tmp_path: Path) -> None:
    shared = state_dict(tensor(), tensor(), tensor(storage("1", 2, "BFloat16Storage"), 0, (2, 1), (1, 1)))
    tensors = read_torch_file(torch_zip(tmp_path / "model.bin", shared, {"0": FLOATS, "1": b"\x80\x3f\0\0"}))
    assert tensors["t0"] == tensors["t1"]
    assert next(iter(tensors["t0"].blocks())).tolist() == [1, 2, 3, 4]
    assert next(iter(tensors["t2"].blocks())).tolist() == [[1], [0]]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_random_programs_are_refused_or_harmless(program: bytes) -> None:
    try:
        read_state_dict(b"\x80\x02" + program + b".")
    except InvalidModelError:
        return


@settings(max_examples=300, deadline=None, derandomize=True)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_damaged_files_are_refused_or_stay_in_bounds(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    path = torch_zip(tmp_path_factory.mktemp("damaged") / "model.bin", state_dict(tensor(), tensor()))
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    try:
        tensors = read_torch_file(path)
    except InvalidModelError:
        return
    for found in tensors.values():
        assert found.offset >= 0
        assert found.offset + found.nbytes <= len(data)
