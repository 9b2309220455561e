"""Hugging Face folders that Chorus does not serve, or would serve with other numbers. They are refused by
name before a tensor is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.documents import quoted, read_json
from chorus_server.model.checkpoints.huggingface_config import special_id
from chorus_server.model.checkpoints.vocabulary_files import FoundVocabulary, check_vocabulary, find_file
from chorus_server.model.config import T5Config

GENERATION = "generation_config.json"
TOKENIZER = "tokenizer_config.json"

_TOKENIZERS = ("T5Tokenizer", "MT5Tokenizer", "PreTrainedTokenizer", "TokenizersBackend")
"""Tokenizers that write text as SentencePiece does, with or without `Fast`; the last two are names for
any."""
_BYT5_ROWS = 384
_ENDINGS = ("shared.weight", "encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight")
_WRAPPERS = {
    "module.": "torch's DataParallel and DeepSpeed add it: save model.module",
    "_orig_mod.": "torch.compile adds it: save model._orig_mod",
    "base_model.model.": "PEFT adds it: save the result of model.merge_and_unload()",
    "_fsdp_wrapped_module.": "torch's FSDP adds it: save the full state dict of the model inside",
}
_ADAPTED = (".base_layer.", ".lora_A.", ".lora_B.", ".lora_embedding_A.", ".ia3_l.", ".modules_to_save.")


def check_model(folder: Path, fields: Mapping[str, Any]) -> None:
    """Refuse quantised weights, and models whose text does not go through SentencePiece.

    Args:
        fields: the fields of `config.json`.

    Raises:
        InvalidModelError: it is such a model; the error names it.
    """
    quantised = fields.get("quantization_config")
    if quantised is not None:
        method = (
            quantised.get("quant_method", "no quant_method") if isinstance(quantised, dict) else quantised
        )
        raise InvalidModelError(
            f"config.json says quantization_config ({quoted(method)}), and Chorus reads float weights only: "
            "use the model that was quantised (chorus models convert --dtype int8 makes a small one)",
            field="quantization_config",
        )
    path = folder / TOKENIZER
    said = fields.get("tokenizer_class") or (
        read_json(path).get("tokenizer_class") if path.is_file() else None
    )
    tokenizer = said.removesuffix("Fast") if isinstance(said, str) else None
    nameless_bytes = fields.get("vocab_size") == _BYT5_ROWS and find_file(folder) is None
    if tokenizer == "ByT5Tokenizer" or (tokenizer is None and nameless_bytes):
        raise InvalidModelError(
            "this is a ByT5, which reads bytes and has no SentencePiece vocabulary; Chorus serves T5, "
            "T5 1.1, Flan-T5 and mT5",
            field="tokenizer_class",
        )
    if tokenizer is not None and tokenizer not in _TOKENIZERS:
        raise InvalidModelError(
            f"the model's tokenizer_class is {quoted(said)}, and Chorus writes text as T5Tokenizer does: the "
            "model would read ids other than those it was trained on",
            field="tokenizer_class",
        )


def check_names(names: Iterable[str]) -> None:
    """Refuse the tensors of a model that was saved inside another.

    Raises:
        InvalidModelError: names begin with a prefix, or an adapter's tensors are among them; the error says
            which.
    """
    names = frozenset(names)
    for name in sorted(names):
        ending = next((each for each in _ENDINGS if name.endswith(f".{each}") and each not in names), None)
        if ending is not None:
            prefix = name.removesuffix(ending)
            found = [advice for wrapper, advice in _WRAPPERS.items() if wrapper in prefix]
            raise InvalidModelError(
                f"the tensors' names begin with {quoted(prefix)} (one is {quoted(name)}), but a T5's do not. "
                + (found[0] if found else "Save the T5 inside that model by itself")
                + ", with save_pretrained",
                field="model",
            )
    adapted = next((name for name in sorted(names) if any(part in name for part in _ADAPTED)), None)
    if adapted is not None:
        raise InvalidModelError(
            f"tensor {quoted(adapted)} belongs to an adapter that was not merged: save the result of PEFT's "
            "model.merge_and_unload(), with save_pretrained",
            field="model",
        )


def check_ids(
    folder: Path, fields: Mapping[str, Any], config: T5Config, vocabulary: FoundVocabulary | None
) -> None:
    """Refuse special ids if config.json, generation_config.json and the vocabulary do not agree on them.

    Raises:
        InvalidModelError: two of them differ; the error names both.
    """
    check_vocabulary(config, vocabulary)
    if vocabulary is not None and fields.get("unk_token_id") not in (None, vocabulary.unk_id):
        raise InvalidModelError(
            f"config.json says unk_token_id {quoted(fields['unk_token_id'])}, but {vocabulary.path.name} has "
            f"<unk> at {vocabulary.unk_id}: one of them belongs to another model",
            field="unk_token_id",
        )
    path = folder / GENERATION
    generation = read_json(path) if path.is_file() else {}
    used = {
        "pad_token_id": config.pad_id,
        "eos_token_id": config.eos_id,
        "decoder_start_token_id": config.decoder_start_id,
    }
    for key, known in used.items():
        other = special_id(generation, key, known, GENERATION)
        if other != known:
            raise InvalidModelError(
                f"config.json has {key} {known}, but {GENERATION} says {other}: correct the one that is "
                "wrong",
                field=key,
            )
