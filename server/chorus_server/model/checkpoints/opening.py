"""From what a user types (a folder, a hub id, a `gs://` folder) to an opened checkpoint."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.chorus_format import ChorusReader, is_chorus
from chorus_server.model.checkpoints.hub import download_model, is_hub_id
from chorus_server.model.checkpoints.huggingface import HuggingFaceReader, is_huggingface, is_torch
from chorus_server.model.checkpoints.reader import CheckpointReader
from chorus_server.model.checkpoints.t5x import T5XReader, is_t5x, latest_step
from chorus_server.model.checkpoints.t5x_config import T5XHints
from chorus_server.model.checkpoints.torch_reader import TorchReader
from chorus_server.model.config import Activation


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """Facts that a source may not give.

    Attributes:
        vocabulary: a SentencePiece model; overrides the one in the folder.
        name: what to call the model.
        allow_torch: read `pytorch_model*.bin` with the restricted reader. Only `chorus models convert` asks
            for this.
        vocab_size: ids without padding rows, if the format does not give them.
        relative_max_distance: only for T5X; None means 128.
        activation: only for T5X; None means gelu if gated, else relu.
    """

    vocabulary: Path | None = None
    name: str = ""
    allow_torch: bool = False
    vocab_size: int | None = None
    relative_max_distance: int | None = None
    activation: Activation | None = None


def open_checkpoint(source: str | Path, options: OpenOptions | None = None) -> CheckpointReader:
    """Recognise a checkpoint's format and open it.

    Raises:
        InvalidModelError: there is nothing, the format is unknown, or the checkpoint cannot be read.
    """
    options = options or OpenOptions()
    text = str(source)
    if "://" in text:
        return T5XReader(text, _hints(text, options), options.vocabulary)
    folder = Path(source)
    if os.path.isdir(folder):  # noqa: PTH112 - it answers for any name
        return open_folder(folder, options)
    if isinstance(source, str) and is_hub_id(source):
        named = options if options.name else dataclasses.replace(options, name=source)
        return open_folder(download_model(source, allow_torch=options.allow_torch), named)
    raise InvalidModelError(
        f"there is no model folder {source}, and it is not a hub id (owner/name)", field="model"
    )


def open_folder(folder: Path, options: OpenOptions) -> CheckpointReader:
    """Open a local folder of any format. Raises InvalidModelError."""
    if is_chorus(folder):
        return ChorusReader(folder, vocabulary=options.vocabulary, name=options.name)
    if is_huggingface(folder):
        return HuggingFaceReader(
            folder, vocabulary=options.vocabulary, name=options.name, vocab_size=options.vocab_size
        )
    step = folder if is_t5x(folder) else latest_step(folder)
    if step is not None:
        return T5XReader(step, _hints(str(step), options), options.vocabulary)
    if is_torch(folder) and options.allow_torch:
        return TorchReader(
            folder, vocabulary=options.vocabulary, name=options.name, vocab_size=options.vocab_size
        )
    if is_torch(folder):
        raise InvalidModelError(
            f"{folder.name} has its weights as pytorch_model.bin, which the server never reads. "
            f"Convert it once: chorus models convert {folder} {folder.name}-chorus",
            field="model",
        )
    raise InvalidModelError(
        f"{folder} has no checkpoint that Chorus can read: no chorus.json, no model.safetensors, "
        "no T5X file named checkpoint",
        field="model",
    )


def _hints(source: str, options: OpenOptions) -> T5XHints:
    """T5X's folder is named after its step, so the model gets the name of the folder above."""
    parts = source.rstrip("/").split("/")
    named = parts[-2] if len(parts) > 1 and parts[-1].startswith("checkpoint_") else parts[-1]
    return T5XHints(
        name=options.name or named,
        vocab_size=options.vocab_size,
        relative_max_distance=options.relative_max_distance,
        activation=options.activation,
    )
