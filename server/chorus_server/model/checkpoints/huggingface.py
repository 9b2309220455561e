"""Hugging Face folders: `config.json` and one or many safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.added_tokens import check_added_tokens
from chorus_server.model.checkpoints.documents import read_json
from chorus_server.model.checkpoints.files import identity_of
from chorus_server.model.checkpoints.huggingface_checks import check_ids, check_model, check_names
from chorus_server.model.checkpoints.huggingface_config import config_from_huggingface, head_from_huggingface
from chorus_server.model.checkpoints.huggingface_names import (
    EMBEDDING_ALIASES,
    HEAD,
    UNUSED,
    huggingface_place,
)
from chorus_server.model.checkpoints.reader import PlacedReader, TensorLocation
from chorus_server.model.checkpoints.safetensors_file import read_safetensors
from chorus_server.model.checkpoints.tensors import RawTensor
from chorus_server.model.checkpoints.vocabulary_files import find_vocabulary

SAFETENSORS_INDEX = "model.safetensors.index.json"
SAFETENSORS_FILE = "model.safetensors"
TORCH_NAMES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class HuggingFaceReader(PlacedReader):
    """A folder as transformers saves it."""

    format: ClassVar[str] = "huggingface"

    def __init__(
        self, folder: Path, *, vocabulary: Path | None = None, name: str = "", vocab_size: int | None = None
    ) -> None:
        """Open a folder.

        Args:
            vocabulary: a SentencePiece model to use instead of the folder's own.

        Raises:
            InvalidModelError: there is no readable config or there are no weights; it is another kind of
                model, or has tokens that the vocabulary lacks; or a tensor is missing, extra or misshapen.
        """
        fields = read_json(folder / "config.json")
        check_model(folder, fields)
        head = head_from_huggingface(fields)
        found = find_vocabulary(folder, vocabulary, fields.get("vocab_size"))
        if found is not None:
            check_added_tokens(folder, found)
        raw, files = self._read_folder(folder)
        check_names(raw)
        shared = is_shared(raw) if head.shared is None else head.shared
        config = config_from_huggingface(
            fields, found, name or folder.resolve().name, vocab_size, tied=shared and head.scaled
        )
        check_ids(folder, fields, config, found)
        self.vocabulary = found
        self.identity = identity_of([folder / "config.json", *files])
        # The model has no scale of its own, except for a tied head.
        output = TensorLocation(
            EMBEDDING_ALIASES[0] if shared else HEAD, True, config.d_model**-0.5 if head.scaled else 1.0
        )
        super().__init__(
            config,
            without_aliases(raw, shared),
            lambda canonical: output if canonical == "head" else huggingface_place(canonical),
            frozenset(UNUSED),
        )

    def _read_folder(self, folder: Path) -> tuple[dict[str, RawTensor], list[Path]]:
        """The raw tensors of a folder, and their files."""
        return read_folder(folder)


def is_huggingface(folder: Path) -> bool:
    """Whether a folder has safetensors weights with transformers' names."""
    return (folder / SAFETENSORS_FILE).is_file() or (folder / SAFETENSORS_INDEX).is_file()


def is_torch(folder: Path) -> bool:
    """Whether a folder has its weights only as `pytorch_model*.bin`."""
    return not is_huggingface(folder) and any((folder / name).is_file() for name in TORCH_NAMES)


def read_folder(folder: Path) -> tuple[dict[str, RawTensor], list[Path]]:
    """The raw tensors of a folder's safetensors file or files, and these files."""
    if not (folder / SAFETENSORS_INDEX).is_file():
        path = folder / SAFETENSORS_FILE
        return dict(read_safetensors(path)), [path]
    files = sharded_files(folder / SAFETENSORS_INDEX)
    raw: dict[str, RawTensor] = {}
    for path, names in files.items():
        merge_shard(raw, path, names, dict(read_safetensors(path)))
    return raw, list(files)


def merge_shard(
    raw: dict[str, RawTensor], path: Path, names: set[str], found: Mapping[str, RawTensor]
) -> None:
    """Add one shard's tensors. The index must not promise a tensor that the file lacks, nor may two files
    have the same one."""
    absent = sorted(names - set(found))
    if absent:
        raise InvalidModelError(
            f"the index says that {path.name} contains tensor {absent[0]}, but it does not"
        )
    for name in found:
        if name in raw:
            raise InvalidModelError(f"tensor {name} is in more than one file, {path.name} among them")
    raw.update(found)


def sharded_files(index: Path) -> dict[Path, set[str]]:
    """The files that an index names, with the tensors that each should have.

    Raises:
        InvalidModelError: there is no `weight_map`, a file is not a plain name in the same folder, or a file
            is missing.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InvalidModelError(f"{index.name} has no weight_map")
    files: dict[Path, set[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or PurePosixPath(file).name != file or "\\" in file or "\0" in file:
            raise InvalidModelError(f"{index.name} places tensor {name} outside its folder")
        files.setdefault(index.parent / file, set()).add(name)
    for path in files:
        if not path.is_file():
            raise InvalidModelError(f"{index.name} names {path.name}, which is not in the folder")
    return files


def is_shared(raw: Mapping[str, RawTensor]) -> bool:
    """Whether the head is the embedding: it is absent, or equal bit for bit."""
    embedding = next((raw[name] for name in EMBEDDING_ALIASES if name in raw), None)
    return HEAD not in raw or embedding is None or same_values(embedding, raw[HEAD])


def without_aliases(raw: Mapping[str, RawTensor], shared: bool) -> dict[str, RawTensor]:
    """If the file has the embedding under several names, check that they are equal and keep one.

    Args:
        shared: whether the head is one of these names.

    Raises:
        InvalidModelError: two names of one tied tensor have different values.
    """
    aliases = (*EMBEDDING_ALIASES, HEAD) if shared else EMBEDDING_ALIASES
    present = [name for name in aliases if name in raw]
    result = {name: tensor for name, tensor in raw.items() if name not in aliases}
    if not present:
        return result
    kept = raw[present[0]]
    for name in present[1:]:
        if not same_values(kept, raw[name]):
            raise InvalidModelError(
                f"tensors {present[0]} and {name} are the same in this architecture, but differ here"
                + (
                    "; if the head has values of its own, set tie_word_embeddings to false in config.json"
                    if name == HEAD
                    else ""
                )
            )
    result[EMBEDDING_ALIASES[0]] = kept
    return result


def same_values(left: RawTensor, right: RawTensor) -> bool:
    """Whether two raw tensors are equal bit for bit."""
    if left == right:
        return True
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    pairs = zip(left.blocks(), right.blocks(), strict=True)
    return all(np.array_equal(one.view(np.uint8), other.view(np.uint8)) for one, other in pairs)
