"""Peak host memory of every checkpoint reader on T5 1.1 XXL (11 billion parameters, 45 GB in f32).

    python benchmarks/checkpoint_memory.py [--size xxl] [--folder DIR] [--results benchmarks/results]

The files are sparse: XXL's true names, shapes and headers, with holes for the data, so 45 GB need no disk.
    Every
byte is read all the same. Each reader runs in a process of its own, casts every tensor and computes the
fingerprint; the peak resident memory of the whole process must stay at or under the largest tensor plus 1
GiB. Restoring our own format onto a device is measured on real weights of T5 1.1 base: the peak above the
model itself.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from chorus_server.model.checkpoints.documents import write_json
from chorus_server.model.checkpoints.flax_msgpack import pack_array
from chorus_server.model.checkpoints.huggingface_config import config_to_huggingface
from chorus_server.model.checkpoints.huggingface_names import huggingface_place
from chorus_server.model.checkpoints.huggingface_writer import write_huggingface
from chorus_server.model.checkpoints.t5x_names import t5x_place
from chorus_server.model.config import T5Config, named_config
from chorus_server.model.parameters import parameter_count, parameter_shapes

GIB = 1 << 30
F32 = np.dtype(np.float32)
DTYPES = ["bfloat16", "float32"]


def sparse_huggingface(folder: Path, config: T5Config) -> None:
    """Headers and holes: the writer plans every offset before it sees a tensor, and sees none."""
    write_huggingface(folder, config, [], dtype=F32, vocabulary=None)


def sparse_t5x(folder: Path, config: T5Config) -> None:
    """Uncompressed zarr whose chunk files are holes, 64 MiB of rows each."""
    target: dict[str, Any] = {}
    for name, shape in parameter_shapes(config).items():
        place = t5x_place(name)
        stored = shape[::-1] if place.transpose else shape
        *parents, last = place.name.split("/")
        node = target
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = (
            pack_array(np.zeros(stored, F32))
            if math.prod(shape) < 65_536
            else _holes(folder, place.name, stored)
        )
    state = {"version": 3, "optimizer": {"target": target}}
    (folder / "checkpoint").write_bytes(msgpack.packb(state, use_bin_type=True))


def _holes(folder: Path, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    rows = min(shape[0], max(1, (64 << 20) // (shape[1] * 4)))
    directory = folder / ("target." + name.replace("/", "."))
    directory.mkdir()
    metadata = {
        "shape": list(shape), "chunks": [rows, shape[1]], "dtype": "<f4", "compressor": None,
        "fill_value": None, "filters": None, "order": "C", "zarr_format": 2,
    }  # fmt: skip
    write_json(directory / ".zarray", metadata)
    for chunk in range(-(-shape[0] // rows)):
        with (directory / f"{chunk}.0").open("wb") as file:
            file.truncate(rows * shape[1] * 4)
    return {"driver": "zarr", "kvstore": {"driver": "file", "path": directory.name}, "metadata": metadata}


def sparse_torch(folder: Path, config: T5Config) -> None:
    """One `pytorch_model.bin` in torch's zip format, its storages holes."""
    places = {name: huggingface_place(name) for name in parameter_shapes(config)}
    shapes = {
        place.name: parameter_shapes(config)[name][:: -1 if place.transpose else 1]
        for name, place in places.items()
    }
    write_json(folder / "config.json", config_to_huggingface(config, "float32"))
    entries: list[tuple[str, int, int]] = []
    with (folder / "pytorch_model.bin").open("wb") as file:
        _entry(file, entries, "m/data.pkl", _state_dict_pickle(shapes))
        for number, shape in enumerate(shapes.values()):
            _entry(file, entries, f"m/data/{number}", math.prod(shape) * 4)
        _directory(file, entries)


def _state_dict_pickle(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """The opcodes that torch.save writes for a state dict of f32 tensors."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def integers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"

    parts = [b"\x80\x02}("]
    for number, (name, shape) in enumerate(shapes.items()):
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        elements = b"\x8a\x08" + struct.pack("<q", math.prod(shape))
        storage = (
            b"("
            + text("storage")
            + b"ctorch\nFloatStorage\n"
            + text(str(number))
            + text("cpu")
            + elements
            + b"tQ"
        )
        hooks = b"ccollections\nOrderedDict\n)R"
        view = storage + b"K\x00" + integers(shape) + integers(strides) + b"\x89" + hooks
        parts.append(text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"tR")
    return b"".join([*parts, b"u."])


def _entry(file: Any, entries: list[tuple[str, int, int]], name: str, content: bytes | int) -> None:
    """A stored file; an integer is the size of a hole."""
    size = content if isinstance(content, int) else len(content)
    entries.append((name, file.tell(), size))
    header = struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(name), 20)
    file.write(header + name.encode() + struct.pack("<2H2Q", 1, 16, size, size))
    if isinstance(content, int):
        file.seek(size, os.SEEK_CUR)
    else:
        file.write(content)


def _directory(file: Any, entries: list[tuple[str, int, int]]) -> None:
    start = file.tell()
    wide = 0xFFFFFFFF
    for name, offset, size in entries:
        head = struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 45, 45, 0, 0, 0, 0, 0, wide, wide, len(name), 28, 0, 0, 0, 0, wide
        )
        file.write(head + name.encode() + struct.pack("<2H3Q", 1, 24, size, size, offset))
    end = file.tell()
    count = len(entries)
    file.write(struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, end - start, start))
    file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1))
    file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, wide, wide, 0))


MAKERS = {"huggingface": sparse_huggingface, "t5x": sparse_t5x, "torch": sparse_torch}


def read_all(folder: str, dtype: str) -> dict[str, Any]:
    """In a process of its own: read, cast and fingerprint every tensor; what that took."""
    from chorus_server.model.checkpoints.opening import OpenOptions, open_checkpoint
    from chorus_server.model.checkpoints.tensors import target_dtype
    from chorus_server.model.fingerprint import Fingerprinter

    begun = time.perf_counter()
    reader = open_checkpoint(folder, OpenOptions(allow_torch=True))
    collector, tensors, size = Fingerprinter(reader.config), 0, 0
    for name, array in reader.tensors(target_dtype(dtype)):
        collector.add(name, array)
        tensors, size = tensors + 1, size + array.size
        del array
    return {
        "format": reader.format, "cast_to": dtype, "tensors": tensors, "parameters": size,
        "fingerprint": collector.fingerprint(), "seconds": round(time.perf_counter() - begun, 1),
        "peak_rss_bytes": _status("VmHWM"),
    }  # fmt: skip


def restore(folder: str, dtype: str) -> dict[str, Any]:
    """In a process of its own: restore our format onto the device; the peak over what JAX had before."""
    import jax

    from chorus_server.model.checkpoints import load_model

    jax.numpy.zeros(8).block_until_ready()
    before, begun = _status("VmRSS"), time.perf_counter()
    loaded = load_model(folder, dtype=dtype)
    jax.block_until_ready(loaded.model.params)
    model = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded.model.params))
    return {
        "model": loaded.name, "dtype": dtype, "model_bytes": model,
        "peak_over_start_bytes": _status("VmHWM") - before,
        "peak_over_model_bytes": _status("VmHWM") - before - model,
        "seconds": round(time.perf_counter() - begun, 1),
    }  # fmt: skip


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def _child(job: str, folder: Path, dtype: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", job, str(folder), dtype]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure_readers(
    config: T5Config, scratch: Path, formats: list[str], dtypes: list[str]
) -> Iterator[dict[str, Any]]:
    largest = max(math.prod(shape) for shape in parameter_shapes(config).values()) * 4
    for name in formats:
        folder = scratch / name
        folder.mkdir()
        MAKERS[name](folder, config)
        files = [path for path in folder.rglob("*") if path.is_file()]
        disk = {
            "apparent_bytes": sum(path.stat().st_size for path in files),
            "allocated_bytes": sum(path.stat().st_blocks * 512 for path in files),
        }
        for dtype in dtypes:
            result = {**_child("read", folder, dtype), **disk, "limit_bytes": largest + GIB}
            result["within_limit"] = result["peak_rss_bytes"] <= result["limit_bytes"]
            assert result["parameters"] == parameter_count(config)
            yield result
        shutil.rmtree(folder)


def measure_restore(scratch: Path) -> Iterator[dict[str, Any]]:
    from chorus_server.model.checkpoints.convert import write_random

    for size in ("small", "base"):
        write_random(named_config(size), scratch / size, seed=0)
        for dtype in ("float32", "bfloat16"):
            yield _child("restore", scratch / size, dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", default="xxl")
    parser.add_argument(
        "--folder", type=Path, help="where the sparse files are made; default a temporary folder"
    )
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--formats", nargs="*", choices=list(MAKERS), help="readers to measure; default all")
    parser.add_argument("--dtypes", nargs="*", choices=DTYPES, help="dtypes to cast to; default both")
    parser.add_argument("--child", nargs=3, metavar=("JOB", "FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        job, folder, dtype = arguments.child
        print(json.dumps({"read": read_all, "restore": restore}[job](folder, dtype)))
        return
    config = named_config(arguments.size)
    name = f"{datetime.now(UTC):%Y-%m-%d}-{os.cpu_count()}core-cpu-checkpoint_memory.json"
    document: dict[str, Any] = {
        "what": "checkpoint_memory",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "model": config.name,
        "parameters": parameter_count(config),
        "readers": [],
        "restore": [],
    }
    arguments.results.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        scratch = Path(made)
        readers = measure_readers(
            config, scratch, arguments.formats or list(MAKERS), arguments.dtypes or DTYPES
        )
        for key, results in (("restore", measure_restore(scratch)), ("readers", readers)):
            for result in results:  # written after each: a run of hours that is cut short keeps what it has
                print(json.dumps(result), flush=True)
                document[key].append(result)
                write_json(arguments.results / name, document)
    print("wrote", arguments.results / name)


if __name__ == "__main__":
    main()
