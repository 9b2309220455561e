"""Builds torch files by hand: honest ones, and each kind of attack on whoever opens them."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

FLOATS = struct.pack("<4f", 1, 2, 3, 4)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def name_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def storage(key: str = "0", elements: int = 4, kind: str = "FloatStorage", module: str = "torch") -> bytes:
    count = b"\x8a\x08" + struct.pack("<q", elements)
    return b"(" + text("storage") + name_of(module, kind) + text(key) + text("cpu") + count + b"tQ"


def integers(*values: int) -> bytes:
    return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"


def tensor(
    held: bytes | None = None, offset: int = 0, shape: tuple[int, ...] = (4,), strides: tuple[int, ...] = (1,)
) -> bytes:
    """A call of torch's `_rebuild_tensor_v2`, as torch.save writes it."""
    arguments = (held or storage()) + integers(offset)[1:-1] + integers(*shape) + integers(*strides) + b"\x89"
    hooks = name_of("collections", "OrderedDict") + b")R"
    return name_of("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + hooks + b"tR"


def state_dict(*values: bytes) -> bytes:
    """A pickle of `{"t0": ..., "t1": ...}`."""
    pairs = b"".join(text(f"t{index}") + value for index, value in enumerate(values))
    return b"\x80\x02}(" + pairs + b"u."


def torch_zip(
    path: Path, pickled: bytes, data: dict[str, bytes] | None = None, *, top: str = "m", **extra: bytes
) -> Path:
    """A file as torch.save would zip it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{top}/data.pkl", pickled)
        for key, content in ({"0": FLOATS} if data is None else data).items():
            archive.writestr(f"{top}/data/{key}", content)
        for name, content in extra.items():
            archive.writestr(f"{top}/{name}", content)
    return path


class _Reduces:
    """Pickles as a call."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __reduce__(self) -> Any:
        return self._parts


def _called(*parts: Any, protocol: int = 2) -> bytes:
    return pickle.dumps({"t0": _Reduces(*parts)}, protocol=protocol)


def pickles(marker: Path) -> dict[str, bytes]:
    """Hostile pickles by name; any that is executed makes the file `marker`."""
    touch = f"touch {marker}"
    run = f"__import__('os').system({touch!r})"
    memo = b"\x80\x02" + b"]" + b"".join(b"q\x00h\x00h\x00\x86" for _ in range(60)) + b"."
    return {
        "os.system": _called(os.system, (touch,)),
        "os.system, protocol 4": _called(os.system, (touch,), protocol=4),
        "os.system, protocol 0": _called(os.system, (touch,), protocol=0),
        "builtins.eval": _called(eval, (run,)),
        "builtins.exec": _called(exec, (run,)),
        "builtins.getattr": b"\x80\x02}" + text("t0")
        + name_of("builtins", "getattr") + name_of("torch", "FloatStorage") + text("__init__") + b"\x86Rs.",
        "getattr chain by dotted STACK_GLOBAL": b"\x80\x04}" + text("t0") + text("collections")
        + text("OrderedDict.__init__.__globals__") + b"\x93s.",
        "dotted GLOBAL": b"\x80\x04}" + text("t0") + name_of("torch", "FloatStorage.__reduce__") + b"s.",
        "nested module": b"\x80\x02}" + text("t0") + name_of("torch._utils.os", "system") + text(touch)
        + b"\x85Rs.",
        "torch.load itself": b"\x80\x02}" + text("t0") + name_of("torch", "load") + text("x") + b"\x85Rs.",
        "STACK_GLOBAL with a computed name": b"\x80\x04}" + text("t0") + b"]" + text("system") + b"\x93s.",
        "subprocess through a permitted prefix": b"\x80\x02}" + text("t0") + b"ctorch\n../subprocess\n)Rs.",
        "INST": b"\x80\x02}" + text("t0") + b"(" + text(touch) + b"ios\nsystem\ns.",
        "OBJ": b"\x80\x02}" + text("t0") + b"(" + name_of("os", "system") + text(touch) + b"os.",
        "NEWOBJ": b"\x80\x02}" + text("t0") + name_of("collections", "OrderedDict") + b")\x81s.",
        "EXT1": b"\x80\x02}" + text("t0") + b"\x82\x01s.",
        "PERSID by line": b"\x80\x02}" + text("t0") + b"Pos.system\ns.",
        "call of a storage": b"\x80\x02}" + text("t0") + name_of("torch", "FloatStorage") + b")Rs.",
        "OrderedDict of arguments": b"\x80\x02}" + text("t0") + name_of("collections", "OrderedDict")
        + b"]\x85Rs.",
        "call with a list": b"\x80\x02}" + text("t0") + name_of("collections", "OrderedDict") + b"]Rs.",
        "BUILD of attributes": b"\x80\x02}" + text("t0") + tensor() + b"s}" + text("__class__") + b"Nsb.",
        "BUILD of a tensor": b"\x80\x02}" + text("t0") + tensor() + b"}" + text("_metadata") + b"}sbs.",
        "persistent id that is no tuple": b"\x80\x02}" + text("t0") + text("storage") + b"Qs.",
        "persistent id of another kind": b"\x80\x02}" + text("t0") + b"(" + text("module")
        + name_of("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x04tQs.",
        "storage of another module": state_dict(tensor(storage(module="os", kind="system"))),
        "unknown storage": state_dict(tensor(storage(kind="UntypedStorage"))),
        "negative storage": state_dict(tensor(storage(elements=-4))),
        "negative offset": state_dict(tensor(offset=-1)),
        "negative shape": state_dict(tensor(shape=(-4,))),
        "shape and strides of other ranks": state_dict(tensor(shape=(2, 2))),
        "boolean shape": state_dict(tensor().replace(integers(4), b"(\x88t", 1)),
        "memo bomb": memo,
        "many operations": b"\x80\x02" + b"]0" * 1_500_000 + b"N.",
        "huge pickle": b"\x80\x02" + b"]" * 5_000_000 + b".",
        "unknown memo": b"\x80\x02h\x07.",
        "stack underflow": b"\x80\x02s.",
        "mark as a value": b"\x80\x02}" + text("t0") + b"(s.",
        "no end": b"\x80\x02}",
        "empty": b"",
        "cut string": b"\x80\x02X\xff\xff\xff\x7fab",
        "not a dictionary": b"\x80\x02]" + text("t0") + b"a.",
        "no tensors": b"\x80\x02}.",
        "value that is no tensor": b"\x80\x02}" + text("t0") + b"K\x01s.",
        "key that is no text": b"\x80\x02}K\x01" + tensor() + b"s.",
        "key twice": b"\x80\x02}(" + text("t0") + tensor() + text("t0") + tensor() + b"u.",
        "two values": b"\x80\x02}}.",
        "deep nesting": b"\x80\x02" + b"(" * 30_000 + b"t" * 30_000 + b".",
    }  # fmt: skip


def zips(folder: Path) -> dict[str, Path]:
    """Hostile containers by name."""
    good = state_dict(tensor())
    return {
        "compressed": _compressed(folder / "compressed.bin", good),
        "zip bomb": _bomb(folder / "bomb.bin"),
        "path out of the archive": torch_zip(folder / "path.bin", good, top="m/.."),
        "path traversal in data": torch_zip(folder / "slip.bin", good, {"../../0": FLOATS}),
        "absolute path": torch_zip(folder / "absolute.bin", good, top="/m"),
        "file twice": _twice(folder / "twice.bin", good),
        "two top folders": _two_tops(folder / "tops.bin", good),
        "TorchScript code": torch_zip(folder / "script.bin", good, None, **{"code/m.py": b"import os"}),
        "constants.pkl": torch_zip(folder / "constants.bin", good, None, **{"constants.pkl": b"."}),
        "overlapping entries": _overlapping(folder / "overlap.bin", good),
        "size past the end": _patched(folder / "long.bin", good, "size"),
        "offset past the end": _patched(folder / "offset.bin", good, "offset"),
        "encrypted": _patched(folder / "encrypted.bin", good, "flags"),
        "comment after the end": _with_tail(folder / "tail.bin", good),
        "cut off": _cut(folder / "cut.bin", good),
        "lying zip64": _lying_zip64(folder / "zip64.bin", good),
        "big-endian": torch_zip(folder / "endian.bin", good, None, byteorder=b"big"),
        "storage that is not there": torch_zip(folder / "gone.bin", good, {"1": FLOATS}),
        "storage shorter than claimed": torch_zip(folder / "short.bin", good, {"0": FLOATS[:8]}),
        "storage longer than claimed": torch_zip(folder / "longer.bin", good, {"0": FLOATS * 2}),
        "tensor past its storage": torch_zip(folder / "past.bin", state_dict(tensor(offset=1))),
        "huge shape": torch_zip(
            folder / "huge.bin", state_dict(tensor(shape=(2**40, 2**40), strides=(2**40, 1)))
        ),
        "overlapping tensors": torch_zip(
            folder / "tensors.bin", state_dict(tensor(shape=(3,)), tensor(offset=1, shape=(3,)))
        ),
        "strides that are not contiguous": torch_zip(
            folder / "strides.bin", state_dict(tensor(shape=(2, 2), strides=(1, 2)))
        ),
        "legacy pickle": _raw(folder / "legacy.bin", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + good),
        "bare pickle": _raw(folder / "bare.bin", good),
        "legacy tar": _raw(folder / "tar.bin", b"sys_info".ljust(512, b"\0") * 4),
        "empty file": _raw(folder / "empty.bin", b""),
        "text": _raw(folder / "text.bin", b"version https://git-lfs.github.com/spec/v1\n"),
    }  # fmt: skip


def _raw(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _compressed(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", pickled)
        archive.writestr("m/data/0", FLOATS)
    return path


def _bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", state_dict(tensor(storage(elements=2**22), shape=(2**22,))))
        archive.writestr("m/data/0", bytes(2**24), zipfile.ZIP_DEFLATED)
    return path


def _twice(path: Path, pickled: bytes) -> Path:
    buffer = bytearray(torch_zip(path, pickled, {"0": FLOATS, "1": FLOATS}).read_bytes())
    return _raw(path, bytes(buffer.replace(b"m/data/1", b"m/data/0")))


def _two_tops(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickled)
        archive.writestr("n/data/0", FLOATS)
    return path


def _entries(buffer: bytearray) -> list[int]:
    """Offsets of the central directory's entries."""
    found, position = [], buffer.find(b"PK\x01\x02")
    while position >= 0:
        found.append(position)
        position = buffer.find(b"PK\x01\x02", position + 4)
    return found


def _patched(path: Path, pickled: bytes, field: str) -> Path:
    buffer = bytearray(torch_zip(path, pickled).read_bytes())
    entry = _entries(buffer)[-1]
    if field == "size":
        buffer[entry + 20 : entry + 28] = struct.pack("<2I", 1 << 20, 1 << 20)
    elif field == "offset":
        buffer[entry + 42 : entry + 46] = struct.pack("<I", 1 << 24)
    else:
        buffer[entry + 8] |= 1
    return _raw(path, bytes(buffer))


def _overlapping(path: Path, pickled: bytes) -> Path:
    """The first file is made to run over the second: two storages of the same bytes."""
    buffer = bytearray(torch_zip(path, pickled, {"0": FLOATS, "1": FLOATS * 8}).read_bytes())
    entry = _entries(buffer)[1]
    buffer[entry + 20 : entry + 28] = struct.pack("<2I", 100, 100)
    return _raw(path, bytes(buffer))


def _with_tail(path: Path, pickled: bytes) -> Path:
    return _raw(path, torch_zip(path, pickled).read_bytes() + b"tail")


def _cut(path: Path, pickled: bytes) -> Path:
    return _raw(path, torch_zip(path, pickled).read_bytes()[:-30])


def _lying_zip64(path: Path, pickled: bytes) -> Path:
    buffer = bytearray(torch_zip(path, pickled).read_bytes())
    buffer[-12:-2] = struct.pack("<H2I", 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    return _raw(path, bytes(buffer))


def naive_load(path: Path) -> Any:
    """The control: what opens such a file without care. Runs whatever the pickle says."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, key: Any) -> Any:
            return key

    with zipfile.ZipFile(path) as archive:
        return Unpickler(io.BytesIO(archive.read("m/data.pkl"))).load()
