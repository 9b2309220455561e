"""`config.json` of a Hugging Face T5 or mT5, to and from `T5Config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.documents import quoted
from chorus_server.model.checkpoints.vocabulary_files import FoundVocabulary
from chorus_server.model.config import T5Config

_ACTIVATIONS = {
    "relu": (False, "relu"),
    "gelu_new": (False, "gelu"),
    "gated-relu": (True, "relu"),
    "gated-gelu": (True, "gelu"),
    "gated-gelu_new": (True, "gelu"),
}
_DENSE_NAMES = {"relu": ("relu",), "gelu": ("gelu_new", "gelu_pytorch_tanh")}
_TIED_BY_DEFAULT = {"t5": True, "mt5": False}
SCALED = "scale_decoder_outputs"
UNPADDED = "chorus_vocab_size"
"""transformers has no field for this: its `vocab_size` counts padding rows, which no fingerprint counts."""
_KNOWN_PADDING = {32128: 32100, 250112: 250100}
"""Rows of the embedding, and how many of them have a meaning: T5's and mT5's vocabularies."""
_PADDED_TO = 64
"""Tables are padded to a multiple of one of these: 128 by T5X, 64 for tensor cores."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a `config.json` says about the head.

    Attributes:
        shared: whether its matrix is the embedding's; None if the tensors have to show it.
        scaled: whether its input is multiplied by d_model ** -0.5.
    """

    shared: bool | None
    scaled: bool


def head_from_huggingface(fields: Mapping[str, Any]) -> Head:
    """In transformers 4, `tie_word_embeddings` means both. transformers 5 writes true there for every model,
    ties a head that is absent or equal, and keeps the old meaning in `scale_decoder_outputs`. Its mT5 has no
    scale.

    Raises:
        InvalidModelError: it is not a T5 or mT5, or a field is wrong; names the field.
    """
    kind = _kind(fields)
    if fields.get(SCALED) is not None:
        return Head(None, _boolean(fields, SCALED, True))
    tied = _boolean(fields, "tie_word_embeddings", _TIED_BY_DEFAULT[kind])
    major = str(fields.get("transformers_version", "")).partition(".")[0]
    if tied and kind == "mt5" and major.isdecimal() and int(major) >= 5:
        return Head(None, False)
    return Head(tied, tied)


def unpadded_vocab_size(rows: int, vocabulary_size: int | None = None) -> int:
    """How many rows of the embedding belong to the vocabulary.

    Args:
        rows: rows of the embedding.
        vocabulary_size: number of pieces and extra ids, if the vocabulary is at hand.

    Raises:
        InvalidModelError: the vocabulary has more ids than the embedding has rows, or so few that the other
            rows cannot be padding.
    """
    known = _KNOWN_PADDING.get(rows, rows)
    if vocabulary_size is None:
        return known
    if vocabulary_size < rows and rows % _PADDED_TO:
        raise InvalidModelError(
            f"the embedding has {rows} rows and the vocabulary {vocabulary_size} ids, but padding would make "
            f"a multiple of {_PADDED_TO}: the model knows tokens that the vocabulary lacks. If those rows "
            f"have no meaning, convert it with --vocab-size {vocabulary_size}",
            field="vocabulary",
        )
    if vocabulary_size > rows:
        raise InvalidModelError(
            f"the vocabulary has {vocabulary_size} ids and the embedding {rows} rows: "
            "it belongs to another model",
            field="vocabulary",
        )
    return vocabulary_size


def config_from_huggingface(
    fields: Mapping[str, Any],
    vocabulary: FoundVocabulary | None,
    name: str,
    vocab_size: int | None = None,
    *,
    tied: bool,
) -> T5Config:
    """The T5Config that a `config.json` describes.

    Args:
        vocabulary: the vocabulary beside it, if there is one. It shows how many rows of the embedding are
            padding.
        name: what to call the model.
        vocab_size: ids without padding rows, if the caller knows; by default the field that we write, else
            the vocabulary's, else the known padding of T5 and mT5.
        tied: in the sense of `T5Config`; see `head_from_huggingface`.

    Raises:
        InvalidModelError: it is not a T5 or mT5, or a field is missing or wrong; names the field.
    """
    _kind(fields)
    size = vocab_size or (_integer(fields, UNPADDED) if UNPADDED in fields else None)
    gated, activation = _feed_forward(fields)
    rows = _integer(fields, "vocab_size")
    layers = _integer(fields, "num_layers")
    return T5Config(
        name=name,
        vocab_size=size or unpadded_vocab_size(rows, None if vocabulary is None else vocabulary.size),
        padded_vocab_size=rows,
        d_model=_integer(fields, "d_model"),
        d_kv=_integer(fields, "d_kv"),
        d_ff=_integer(fields, "d_ff"),
        num_heads=_integer(fields, "num_heads"),
        num_encoder_layers=layers,
        num_decoder_layers=_integer(fields, "num_decoder_layers", layers),
        relative_buckets=_integer(fields, "relative_attention_num_buckets", 32),
        relative_max_distance=_integer(fields, "relative_attention_max_distance", 128),
        gated=gated,
        activation=activation,
        tied=tied,
        norm_epsilon=_number(fields, "layer_norm_epsilon", 1e-6),
        dropout_rate=_number(fields, "dropout_rate", 0.1),
        pad_id=special_id(fields, "pad_token_id", 0),
        eos_id=special_id(fields, "eos_token_id", 1),
        decoder_start_id=special_id(fields, "decoder_start_token_id", 0),
        extra_ids=100 if vocabulary is None else vocabulary.extra_ids,
    )


def config_to_huggingface(config: T5Config, dtype: str) -> dict[str, Any]:
    """The `config.json` with which transformers builds the same model."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": config.padded_vocab_size,
        UNPADDED: config.vocab_size,
        "d_model": config.d_model,
        "d_kv": config.d_kv,
        "d_ff": config.d_ff,
        "num_heads": config.num_heads,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_max_distance,
        # transformers reads "gated-gelu" as gelu_new, the tanh approximation; plain "gelu" would be the
        # exact one.
        "feed_forward_proj": _feed_forward_name(config),
        "tie_word_embeddings": config.tied,
        # transformers 5.0 reads the scale only from here.
        SCALED: config.tied,
        "layer_norm_epsilon": config.norm_epsilon,
        "dropout_rate": config.dropout_rate,
        "pad_token_id": config.pad_id,
        "eos_token_id": config.eos_id,
        "decoder_start_token_id": config.decoder_start_id,
        "is_encoder_decoder": True,
        "use_cache": True,
        "torch_dtype": dtype,
    }


def _feed_forward_name(config: T5Config) -> str:
    if config.gated:
        return f"gated-{config.activation}"
    return "gelu_new" if config.activation == "gelu" else "relu"


def _feed_forward(fields: Mapping[str, Any]) -> tuple[bool, Any]:
    name = fields.get("feed_forward_proj", "relu")
    if name not in _ACTIVATIONS:
        raise InvalidModelError(
            f"config.json says feed_forward_proj {name!r}; expected one of {', '.join(sorted(_ACTIVATIONS))}",
            field="feed_forward_proj",
        )
    gated, activation = _ACTIVATIONS[name]
    # transformers uses these two fields if they are there; to believe either side would be a guess.
    said = {"is_gated_act": (gated,), "dense_act_fn": _DENSE_NAMES[activation]}
    for key, expected in said.items():
        if fields.get(key) is not None and fields[key] not in expected:
            raise InvalidModelError(
                f"config.json contradicts itself: feed_forward_proj is {name!r} and {key} is "
                f"{quoted(fields[key])}; correct the one that is wrong",
                field=key,
            )
    return gated, activation


def special_id(fields: Mapping[str, Any], key: str, default: int, file: str = "config.json") -> int:
    """The id in a field; in a list of one, that one.

    Raises:
        InvalidModelError: there is no id, or there are several.
    """
    value = fields.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _integer({key: value}, key, default, least=0, file=file)


def _kind(fields: Mapping[str, Any]) -> str:
    kind = fields.get("model_type", "t5")
    if kind not in _TIED_BY_DEFAULT:
        message = f"config.json says model_type {kind!r}; Chorus serves 't5' and 'mt5'"
        raise InvalidModelError(message, field="model_type")
    return str(kind)


def _integer(
    fields: Mapping[str, Any], key: str, default: int | None = None, least: int = 1, file: str = "config.json"
) -> int:
    value = fields.get(key)
    if value is None:
        value = default
    if type(value) is not int or not least <= value < 2**31:
        raise _wrong(key, f"an integer of at least {least}", value, file)
    return value


def _number(fields: Mapping[str, Any], key: str, default: float) -> float:
    value = fields.get(key, default)
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise _wrong(key, "a number from 0 up to 1", value)
    return float(value)


def _boolean(fields: Mapping[str, Any], key: str, default: bool) -> bool:
    value = fields.get(key, default)
    if type(value) is not bool:
        raise _wrong(key, "true or false", value)
    return value


def _wrong(key: str, expected: str, value: Any, file: str = "config.json") -> InvalidModelError:
    got = "nothing" if value is None else quoted(value)
    return InvalidModelError(f"{file}: {key} must be {expected}, but is {got}", field=key)
