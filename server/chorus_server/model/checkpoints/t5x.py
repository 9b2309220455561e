"""T5X checkpoints: a msgpack file named `checkpoint`, and a zarr folder for each large tensor.

It is read from a local folder or straight from Google Cloud Storage, with the same code. The format has
neither config nor vocabulary: shapes give every size, and `OpenOptions` the rest.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import tensorstore as ts

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.files import identity_of
from chorus_server.model.checkpoints.flax_msgpack import Packed, flatten, unpack
from chorus_server.model.checkpoints.kvstores import child_spec, folder_spec
from chorus_server.model.checkpoints.reader import PlacedReader
from chorus_server.model.checkpoints.t5x_config import T5XHints, infer_config
from chorus_server.model.checkpoints.t5x_names import t5x_place
from chorus_server.model.checkpoints.tensors import ArrayTensor, RawTensor
from chorus_server.model.checkpoints.vocabulary_files import check_vocabulary, find_vocabulary
from chorus_server.model.checkpoints.zarr_tensor import bounded_context, open_all

STATE = "checkpoint"
_SAFE = re.compile(r"[A-Za-z0-9_.\-]+")


class T5XReader(PlacedReader):
    """A T5X checkpoint folder (`.../checkpoint_1100000`)."""

    format: ClassVar[str] = "t5x"

    def __init__(self, source: str | Path, hints: T5XHints, vocabulary: Path | None = None) -> None:
        """Open a folder.

        Args:
            source: a path, a `file://` or a `gs://` address.

        Raises:
            InvalidModelError: there is no such checkpoint, or a tensor is missing, extra or misshapen.
        """
        folder = folder_spec(source)
        raw = _raw_tensors(folder)
        local = Path(folder["path"]) if folder["driver"] == "file" else None
        rows = raw["token_embedder/embedding"].shape[0] if "token_embedder/embedding" in raw else None
        where = local or Path()
        self.vocabulary = find_vocabulary(where, vocabulary, rows) if local or vocabulary else None
        config = infer_config({name: tensor.shape for name, tensor in raw.items()}, hints, self.vocabulary)
        check_vocabulary(config, self.vocabulary)
        if local is not None:
            self.identity = identity_of(path for path in sorted(local.rglob("*")) if path.is_file())
        super().__init__(config, raw, t5x_place, frozenset())


def is_t5x(folder: Path) -> bool:
    """Whether a local folder is a T5X checkpoint."""
    return (folder / STATE).is_file()


def latest_step(folder: Path) -> Path | None:
    """The highest `checkpoint_STEP` in a local folder of such folders, or None."""
    steps = {
        int(match.group(1)): path
        for path in folder.glob("checkpoint_*")
        if (match := re.fullmatch(r"checkpoint_(\d{1,18})", path.name)) and is_t5x(path)
    }
    return steps[max(steps)] if steps else None


def _raw_tensors(folder: dict[str, Any]) -> dict[str, RawTensor]:
    context = bounded_context()
    leaves = _target_leaves(_read_state(folder, context))
    in_msgpack: dict[str, RawTensor] = {}
    in_zarr: dict[str, dict[str, Any]] = {}
    for name, leaf in leaves.items():
        if isinstance(leaf, Packed):
            in_msgpack[name] = ArrayTensor(leaf.array())
        elif isinstance(leaf, dict):
            in_zarr[name] = child_spec(folder, _folder_name(name, leaf))
        elif hasattr(leaf, "dtype"):
            in_msgpack[name] = ArrayTensor(leaf)
        else:
            raise InvalidModelError(f"tensor {name} is neither an array nor a zarr folder")
    return {**in_msgpack, **open_all(in_zarr, context)}


def _read_state(folder: dict[str, Any], context: ts.Context) -> dict[str, Any]:
    try:
        store = ts.KvStore.open(folder, context=context).result()
        found = store.read(STATE).result()
    except ValueError as error:
        raise InvalidModelError(f"cannot read {folder['path']}{STATE}: {error}", field="model") from error
    if found.state != "value":
        raise InvalidModelError(
            f"{folder['path']} is not a T5X checkpoint: it has no file named {STATE!r} "
            "(name the checkpoint_STEP folder itself)",
            field="model",
        )
    return unpack(found.value)


def _target_leaves(state: dict[str, Any]) -> dict[str, Any]:
    """The weights. Version 3 keeps them under `optimizer/target`."""
    holder = state.get("optimizer", state)
    target = holder.get("target") if isinstance(holder, dict) else None
    if not isinstance(target, dict) or not target:
        raise InvalidModelError("the T5X checkpoint has no optimizer/target, where its weights should be")
    return flatten(target)


def _folder_name(name: str, leaf: dict[str, Any]) -> str:
    """The zarr folder beside the state file. The stored path says where it was first written, so only its
    last part still means anything."""
    kvstore = leaf.get("kvstore")
    path = kvstore.get("path") if isinstance(kvstore, dict) else None
    last = path.rstrip("/").rsplit("/", 1)[-1] if isinstance(path, str) else ""
    if not _SAFE.fullmatch(last) or set(last) == {"."}:
        raise InvalidModelError(f"tensor {name} does not say which zarr folder it is in")
    return last
