"""From what a user types (a folder, a hub id, a `gs://` folder) to an opened checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.errors import InvalidModelError
from server.model.checkpoints.chorus_format import ChorusReader, is_chorus
from server.model.checkpoints.huggingface import HuggingFaceReader, is_huggingface, is_torch
from server.model.checkpoints.reader import CheckpointReader
from server.model.config import Activation


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """What a source may not say about itself.

    Attributes:
        vocabulary: a SentencePiece model; overrides the one in the folder.
        name: what to call the model.
        allow_torch: read `pytorch_model*.bin` through the restricted reader. Only `chorus models convert`
            asks for it.
        vocab_size: T5X only: ids without padding rows.
        relative_max_distance: T5X only; None is 128.
        activation: T5X only; None is gelu when gated, else relu.
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
        InvalidModelError: nothing there, a format that is not known, or a checkpoint that cannot be read.
    """
    options = options or OpenOptions()
    folder = Path(source)
    if not folder.is_dir():
        raise InvalidModelError(f"there is no model folder {source}", field="model")
    if is_chorus(folder):
        return ChorusReader(folder, vocabulary=options.vocabulary, name=options.name)
    if is_huggingface(folder):
        return HuggingFaceReader(folder, vocabulary=options.vocabulary, name=options.name)
    if is_torch(folder):
        raise InvalidModelError(
            f"{folder.name} holds its weights as pytorch_model.bin, which the server never reads. "
            f"Convert it once: chorus models convert {folder} {folder.name}-chorus",
            field="model",
        )
    raise InvalidModelError(f"{source} holds no checkpoint that Chorus can read", field="model")
