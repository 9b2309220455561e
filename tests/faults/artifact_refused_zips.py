"""The refuse corpus, part three: zips and PEFT adapters."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from typing import Any

import numpy as np

from prompts_store.artifacts import Reason
from tests.faults.artifact_builders import (
    FIXTURES,
    VALUES,
    D,
    Member,
    P,
    Refused,
    adapter_zip,
    changed,
    config_file,
    entry,
    members,
    nested,
    of_tasks,
    safetensors_file,
    weights_file,
    zip_file,
)

R = Reason


def zeros_npz() -> bytes:
    """64 MB of zeros in a few KB."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, prompt=np.zeros((2**12, 2**12), np.float32))
    return buffer.getvalue()


def bomb(claimed: int | None = None) -> bytes:
    """An adapter whose weights unpack to 100 MB; `claimed` says that they do not."""
    return adapter_zip(weights=b"\0" * 100_000_000, size=claimed)


def overlapping() -> bytes:
    """An entry that lies inside another one's data and is listed as well: the trick of the best bombs."""
    inner = Member(b"inner.json", b"{}", method=0)
    record = zip_file([inner]).split(b"PK\x01\x02")[0]
    outer = Member(b"outer.bin", record, method=0)
    inner.start, inner.directory_only = 30 + len(outer.name), True
    return zip_file([outer, inner])


def moved(data: bytes, marker: bytes, offset: int, value: bytes) -> bytes:
    """The file with bytes replaced at an offset behind the last `marker`."""
    position = data.rindex(marker) + offset
    return data[:position] + value + data[position + len(value) :]


def half_deflated() -> bytes:
    return zlib.compress(weights_file(), wbits=-15)[:-20]


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, prompt=VALUES)
    return buffer.getvalue()


def kind_of(kind: str) -> bytes:
    """A real configuration of another kind beside good weights."""
    return adapter_zip((FIXTURES / "peft_kinds" / f"{kind}.json").read_bytes())


OF_TASKS: tuple[tuple[str, dict[str, Any], Reason, str], ...] = (
    (
        "none chosen",
        {
            "columns": np.ones((3, P, 2), np.float32),
            "rows": np.ones((3, 2, D), np.float32),
            "config": {"num_tasks": 3},
        },
        R.PEFT_TASK,
        "task_index, 0 to 2",
    ),
    ("other columns", {"columns": np.ones((1, P + 1, 2), np.float32)}, R.PEFT_ROWS, "[tasks, 4, ranks]"),
    ("flat columns", {"columns": np.float32(1)}, R.PEFT_ROWS, "[tasks, 4, ranks]"),
    ("other rows", {"rows": np.ones((1, 2, D - 1), np.float32)}, R.PEFT_ROWS, "[tasks, ranks, 6]"),
    ("other number of tasks", {"config": {"num_tasks": 2}}, R.PEFT_ROWS, "num_tasks"),
    ("other number of ranks", {"config": {"num_ranks": 3}}, R.PEFT_ROWS, "num_ranks"),
    (
        "no task",
        {
            "columns": np.ones((0, P, 2), np.float32),
            "rows": np.ones((0, 2, D), np.float32),
            "config": {"num_tasks": None},
        },
        R.PEFT_ROWS,
        "no task",
    ),
    (
        "33 ranks",
        {
            "columns": np.ones((1, P, 33), np.float32),
            "rows": np.ones((1, 33, D), np.float32),
            "config": {"num_ranks": 33},
        },
        R.PEFT_ROWS,
        "1 to 32 ranks",
    ),
    ("NaN in a factor", {"rows": np.full((1, 2, D), np.nan, np.float32)}, R.NOT_FINITE, "row 0, column 0"),
    ("an overflow", {"rows": np.full((1, 2, D), 3e38, np.float32)}, R.NOT_FINITE, "an infinity"),
    ("cut off", {"cut": 4}, R.TRUNCATED, "ends after"),
    ("a gap", {"gap": 4}, R.BAD_OFFSETS, "do not cover"),
    ("without rows", {"without": "prefix_task_rows"}, R.TENSOR_MISSING, "prefix_task_rows"),
)


def two_tensors() -> bytes:
    body = VALUES.tobytes()
    return safetensors_file({"prompt_embeddings": entry(), "head": entry(data_offsets=[96, 192])}, body * 2)


ZIP: tuple[Refused, ...] = (
    Refused("zip of nothing", lambda: zip_file([]), R.PEFT_CONFIG_MISSING, "adapter_config.json"),
    Refused("zip cut off", lambda: adapter_zip()[:-1], R.ZIP_INVALID, "cut off"),
    Refused("zip magic alone", lambda: b"PK\x03\x04", R.ZIP_INVALID, "cut off"),
    Refused("zip trailing bytes", lambda: zip_file(members(), after=b"\n"), R.ZIP_INVALID, "after it"),
    Refused("zip comment", lambda: zip_file(members(), comment=b"hello"), R.ZIP_INVALID, "comment"),
    Refused(
        "zip behind a local header",
        lambda: zip_file(members(), before=b"PK\x03\x04" + bytes(40)),
        R.ZIP_INVALID,
        "gaps",
    ),
    Refused("zip with gaps", lambda: zip_file(members(), between=b"1234"), R.ZIP_INVALID, "gaps"),
    Refused("zip overlapping", overlapping, R.ZIP_INVALID, "overlap"),
    Refused(
        "zip listed twice",
        lambda: zip_file([*members(), Member(b"other", b"", start=0, local_name=b"other")]),
        R.ZIP_INVALID,
        "differ",
    ),
    Refused(
        "zip names differ", lambda: adapter_zip(local_name=b"another.safetensors"), R.ZIP_INVALID, "differ"
    ),
    Refused("zip checksums differ", lambda: adapter_zip(local_crc=7), R.ZIP_INVALID, "differ"),
    Refused("zip checksum wrong", lambda: adapter_zip(crc=7), R.ZIP_INVALID, "checksum"),
    Refused("zip not deflated", lambda: adapter_zip(stored=b"\xff" * 50), R.ZIP_INVALID, "unpacked"),
    Refused("zip deflated in part", lambda: adapter_zip(stored=half_deflated()), R.ZIP_INVALID, "cut off"),
    Refused("zip larger than it says", lambda: adapter_zip(size=10), R.ZIP_BOMB, "more than the zip says"),
    Refused("zip smaller than it says", lambda: adapter_zip(size=5000), R.ZIP_INVALID, "size"),
    Refused("zip64", lambda: zip_file(members(), count=0xFFFF), R.ZIP_INVALID, "64-bit"),
    Refused(
        "zip of 65 files", lambda: zip_file([Member(b"%d" % i, b"") for i in range(65)]), R.ZIP_ENTRIES, "65"
    ),
    Refused("zip claims 60,000", lambda: zip_file(members(), count=60_000), R.ZIP_ENTRIES, "60000"),
    Refused(
        "zip claims one less", lambda: zip_file(members(), count=1), R.ZIP_INVALID, "longer than its entries"
    ),
    Refused(
        "zip directory elsewhere",
        lambda: moved(adapter_zip(), b"PK\x05\x06", 16, b"\1\0\0\0"),
        R.ZIP_INVALID,
        "end record",
    ),
    Refused(
        "zip directory damaged",
        lambda: moved(adapter_zip(), b"PK\x01\x02", 0, b"PK??"),
        R.ZIP_INVALID,
        "damaged",
    ),
    Refused(
        "zip name beyond the directory",
        lambda: moved(adapter_zip(), b"PK\x01\x02", 28, b"\xff\xff"),
        R.ZIP_INVALID,
        "damaged",
    ),
    Refused(
        "zip entry beyond the file",
        lambda: moved(adapter_zip(), b"PK\x01\x02", 42, b"\xff\xff\xff\x7f"),
        R.ZIP_INVALID,
        "outside",
    ),
    Refused("zip claims one more", lambda: zip_file(members(), count=3), R.ZIP_INVALID, "directory"),
    Refused("zip bomb", bomb, R.ZIP_BOMB, "100000000 bytes"),
    Refused("zip bomb that lies", lambda: bomb(claimed=200), R.ZIP_BOMB, "more than the zip says"),
    Refused("zip configuration bomb", lambda: adapter_zip(config=b" " * 10_000_000), R.ZIP_BOMB, "65536"),
    *(
        Refused(
            f"zip path {name!r}",
            lambda name=name: zip_file([*members(), Member(name, b"")]),
            R.ZIP_PATH,
            says,
        )
        for name, says in (
            (b"../evil", "zip -j"),
            (b"/etc/passwd", "zip -j"),
            (b"folder/adapter_config.json", "zip -j"),
            (b"folder/", "zip -j"),
            (b"C:\\evil", "zip -j"),
            (b"evil\x00.json", r"\x00"),
            (b"..", "zip -j"),
            (b"\xff\xfe", "zip -j"),
            (b"", "0 bytes"),
            (b"n" * 300, "300 bytes"),
        )
    ),
    Refused("zip symlink", lambda: adapter_zip(mode=0o120777), R.SYMLINK, "link"),
    Refused("zip device", lambda: adapter_zip(mode=0o020666), R.SYMLINK, "special"),
    Refused("zip name twice", lambda: zip_file([*members(), *members()[:1]]), R.ZIP_DUPLICATE, "twice"),
    Refused(
        "zip name twice but for case",
        lambda: zip_file([*members(), Member(b"ADAPTER_MODEL.SAFETENSORS", b"")]),
        R.ZIP_DUPLICATE,
        "twice",
    ),
    Refused("zip encrypted", lambda: adapter_zip(flags=1), R.ZIP_ENCRYPTED, "password"),
    Refused("zip by LZMA", lambda: adapter_zip(method=14), R.ZIP_COMPRESSION, "method 14"),
    Refused("npz", npz, R.NPZ, "numpy.save"),
    Refused("npz bomb", zeros_npz, R.NPZ, "numpy.save"),
    Refused(
        "zip of a prompt",
        lambda: zip_file([Member(b"prompt.safetensors", safetensors_file(VALUES))]),
        R.PEFT_CONFIG_MISSING,
        "as it is",
    ),
)


PEFT: tuple[Refused, ...] = (
    *(
        Refused(f"peft {kind}", lambda kind=kind: kind_of(kind), R.PEFT_KIND, f"'{kind}'")
        for kind in ("PREFIX_TUNING", "LORA", "IA3")
    ),
    *(
        Refused(f"peft tasks, {name}", lambda changes=changes: of_tasks(**changes), reason, says)
        for name, changes, reason, says in OF_TASKS
    ),
    Refused(
        "peft kind unheard of", lambda: adapter_zip(config_file(peft_type="\x1b[2J")), R.PEFT_KIND, r"\x1b"
    ),
    Refused(
        "peft without kind",
        lambda: adapter_zip(config_file(peft_type=...)),
        R.PEFT_CONFIG_INVALID,
        "peft_type",
    ),
    Refused(
        "peft for a decoder",
        lambda: adapter_zip(config_file(task_type="CAUSAL_LM")),
        R.PEFT_CONFIG_INVALID,
        "SEQ_2_SEQ_LM",
    ),
    Refused(
        "peft without length",
        lambda: adapter_zip(config_file(num_virtual_tokens=...)),
        R.PEFT_CONFIG_INVALID,
        "num_virtual_tokens",
    ),
    Refused(
        "peft length no number",
        lambda: adapter_zip(config_file(num_virtual_tokens="4")),
        R.PEFT_CONFIG_INVALID,
        "positive",
    ),
    Refused(
        "peft length 0",
        lambda: adapter_zip(config_file(num_virtual_tokens=0)),
        R.PEFT_CONFIG_INVALID,
        "positive",
    ),
    Refused(
        "peft three submodules",
        lambda: adapter_zip(config_file(num_transformer_submodules=3)),
        R.PEFT_CONFIG_INVALID,
        "other than 1 and 2",
    ),
    Refused(
        "peft other token_dim",
        lambda: adapter_zip(config_file(token_dim=7)),
        R.PEFT_CONFIG_INVALID,
        "token_dim",
    ),
    Refused(
        "peft configuration not JSON",
        lambda: adapter_zip(b"peft_type: PROMPT_TUNING"),
        R.PEFT_CONFIG_INVALID,
        "JSON",
    ),
    Refused("peft configuration a list", lambda: adapter_zip(b"[]"), R.PEFT_CONFIG_INVALID, "object"),
    Refused("peft configuration nested", lambda: adapter_zip(nested(5000)), R.PEFT_CONFIG_INVALID, "nested"),
    Refused(
        "peft key twice",
        lambda: adapter_zip(b'{"peft_type":1,"peft_type":2}'),
        R.DUPLICATE_KEY,
        "'peft_type'",
    ),
    Refused(
        "peft fewer rows", lambda: adapter_zip(weights=weights_file(VALUES[:3])), R.PEFT_ROWS, "has 3 rows"
    ),
    Refused(
        "peft one submodule of two",
        lambda: adapter_zip(config_file(num_transformer_submodules=2)),
        R.PEFT_ROWS,
        "4 x 2",
    ),
    Refused("peft no rows", lambda: adapter_zip(weights=weights_file(VALUES[:0])), R.PEFT_ROWS, "has 0 rows"),
    Refused("peft too long", lambda: adapter_zip(config_file(num_virtual_tokens=17)), R.TOO_LONG, "17 rows"),
    Refused(
        "peft wrong width", lambda: adapter_zip(weights=weights_file(VALUES[:, :5])), R.WRONG_WIDTH, "5 wide"
    ),
    Refused(
        "peft NaN", lambda: adapter_zip(weights=weights_file(changed(0, 0, np.nan))), R.NOT_FINITE, "NaN"
    ),
    Refused(
        "peft tensor 'prompt'",
        lambda: adapter_zip(weights=safetensors_file(VALUES)),
        R.TENSOR_MISSING,
        "prompt_embeddings",
    ),
    Refused("peft with a classifier", lambda: adapter_zip(weights=two_tensors()), R.TENSOR_EXTRA, "head"),
    Refused(
        "peft pickle by another name",
        lambda: adapter_zip(weights=pickle.dumps({"prompt_embeddings": VALUES})),
        R.PICKLE,
        "can run code",
    ),
    Refused(
        "peft header of 4 TiB",
        lambda: adapter_zip(weights=struct.pack("<Q", 2**42) + b"{}"),
        R.HEADER_TOO_LARGE,
        "16384",
    ),
    Refused(
        "peft .bin",
        lambda: zip_file([members()[0], Member(b"adapter_model.bin", b"PK")]),
        R.PEFT_PICKLE,
        "safe_serialization=True",
    ),
    Refused(
        "peft without weights",
        lambda: zip_file(members()[:1]),
        R.PEFT_WEIGHTS_MISSING,
        "adapter_model.safetensors",
    ),
    Refused(
        "peft without configuration",
        lambda: zip_file(members()[1:]),
        R.PEFT_CONFIG_MISSING,
        "adapter_config.json",
    ),
)
