"""Folders that are almost a T5 of ours: each is refused by what makes it another, and its control is read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.convert import convert_checkpoint, write_checkpoint
from chorus_server.model.checkpoints.vocabulary_files import find_vocabulary, fit_vocabulary
from chorus_server.model.vocabulary import Vocabulary
from tests.server.model.checkpoints.checkpoint_samples import (
    F32,
    TINY,
    configure,
    opened,
    read,
    rewrite,
    train_vocabulary,
    weights,
)

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def spiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_vocabulary(tmp_path_factory.mktemp("vocabulary") / "spiece.model")


@pytest.fixture
def folder(spiece: Path, tmp_path: Path) -> Path:
    """A Hugging Face folder with a vocabulary of 36 pieces and 100 sentinels, as transformers leaves one."""
    config, found = fit_vocabulary(TINY, spiece)
    tensors = weights(config).items()
    write_checkpoint(tmp_path / "m", config, tensors, to="hf", dtype=F32, vocabulary=found, source="test")
    for name, document in _ordinary(Vocabulary.load(spiece)).items():
        _put(name, document)(tmp_path / "m")
    return tmp_path / "m"


def _ordinary(vocabulary: Vocabulary) -> dict[str, dict[str, Any]]:
    """What both majors of transformers save beside every T5, the files of transformers 5 under its keys."""
    sentinels = {f"<extra_id_{index}>": vocabulary.sentinel(index) for index in range(100)}
    known = {"<pad>": 0, "</s>": 1, "<unk>": 2, **sentinels}
    named = {"eos_token": "</s>", "unk_token": {"content": "<unk>", "lstrip": False}, "pad_token": "<pad>"}
    return {
        "added_tokens.json": sentinels,
        "special_tokens_map.json": {**named, "additional_special_tokens": [*sentinels]},
        "tokenizer_config.json": {
            **named,
            "added_tokens_decoder": {str(id): {"content": text} for text, id in known.items()},
            "additional_special_tokens": [*sentinels],
            "extra_special_tokens": ["<pad>", "</s>", *sentinels],
            "extra_ids": 100,
            "legacy": False,
            "tokenizer_class": "T5TokenizerFast",
        },
        "tokenizer.json": {"added_tokens": [{"id": id, "content": text} for text, id in known.items()]},
        "generation_config.json": {"eos_token_id": [1], "pad_token_id": 0, "decoder_start_token_id": 0},
    }


def _put(name: str, document: Any, *, merge: bool = False) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        old = json.loads(path.read_text()) if merge and path.is_file() else {}
        path.write_text(json.dumps({**old, **document}))

    return change


def _set(**fields: Any) -> Change:
    return lambda folder: configure(folder, **fields)


def _rename(prefix: str) -> Change:
    return lambda folder: rewrite(folder, lambda state: {f"{prefix}{name}": v for name, v in state.items()})


def _add(name: str) -> Change:
    return lambda folder: rewrite(folder, lambda state: {**state, name: np.ones((2, 2), np.float32)})


def _tokenizer(**fields: Any) -> Change:
    return _put("tokenizer_config.json", fields, merge=True)


BRACE = {"content": "{", "normalized": True}

TOKENS: dict[str, tuple[Change, list[str]]] = {
    "added_tokens.json": (
        _put("added_tokens.json", {"{": 136, "}": 137, "<": 138, "\n": 139}),
        ["added_tokens.json adds 4 tokens to spiece.model", '"{" (id 136)', '"}"', '"<"', '"\\n" (id 139)'],
    ),
    "tokenizer_config.json": (_tokenizer(added_tokens_decoder={"136": BRACE}), ['one token', '"{" (id 136)']),
    "special tokens": (_tokenizer(additional_special_tokens=["<sep>"]), ["tokenizer_config.json", '"<sep>"']),
    "5, a list": (_tokenizer(extra_special_tokens=["<sep>"]), ['"<sep>"']),
    "5, by name": (_tokenizer(extra_special_tokens={"image_token": "<sep>"}), ['"<sep>"']),
    "special_tokens_map.json": (
        _put("special_tokens_map.json", {"additional_special_tokens": [{"content": "<sep>"}]}),
        ["special_tokens_map.json adds one token", '"<sep>"'],
    ),
    "tokenizer.json": (
        _put("tokenizer.json", {"added_tokens": [{"id": 136, "content": "<sep>"}]}),
        ["tokenizer.json adds one token", '"<sep>" (id 136)'],
    ),
    "many": (_put("added_tokens.json", {f"<{n}>": 136 + n for n in range(9)}), ["9 tokens", "and 4 more"]),
    "a piece that splits text": (_put("added_tokens.json", {"\u2581the": 5}), ["one token", "\\u2581the"]),
    "hostile": (_put("added_tokens.json", {"\x1b[2J" + "x" * 9_000: 136}), ['"\\u001b[2Jxxxx']),
    "another sentinel": (_put("added_tokens.json", {"<extra_id_0>": 60}), ["<extra_id_0>", "60", "135"]),
    "one sentinel more": (_put("added_tokens.json", {"<extra_id_100>": 136}), ['"<extra_id_100>" (id 136)']),
    "another end": (_tokenizer(eos_token="<unk>"), ["eos_token", '"<unk>"', '"</s>"']),
    "another unknown": (_tokenizer(unk_token="<pad>"), ["unk_token", '"<pad>"', '"<unk>"']),
    "a larger table": (_set(chorus_vocab_size=None), ["168 rows", "136 ids", "--vocab-size 136"]),
    "no object": (lambda folder: (folder / "added_tokens.json").write_text("[]") and None, ["JSON object"]),
}  # fmt: skip

IDS: dict[str, tuple[Change, list[str]]] = {
    "end": (_set(eos_token_id=2), ["eos_token_id 2", "</s> at 1"]),
    "padding": (_set(pad_token_id=1), ["pad_token_id 1", "<pad> at 0"]),
    "unknown": (_set(unk_token_id=3), ["unk_token_id 3", "<unk> at 2"]),
    "several ends": (_set(eos_token_id=[1, 2]), ["eos_token_id", "[1, 2]"]),
    "ends of generation": (
        _put("generation_config.json", {"eos_token_id": [1, 5]}), ["generation_config.json", "[1, 5]"],
    ),
    "end of generation": (
        _put("generation_config.json", {"eos_token_id": 5}),
        ["eos_token_id 1", "generation_config.json says 5"],
    ),
    "start": (
        _put("generation_config.json", {"decoder_start_token_id": 3}),
        ["decoder_start_token_id 0", "generation_config.json says 3"],
    ),
}  # fmt: skip

KINDS: dict[str, tuple[Change, list[str]]] = {
    "byt5": (_set(tokenizer_class="ByT5Tokenizer"), ["ByT5"]),
    "byt5 elsewhere": (_tokenizer(tokenizer_class="ByT5Tokenizer"), ["ByT5"]),
    "another tokenizer": (_tokenizer(tokenizer_class="LlamaTokenizerFast"), ['"LlamaTokenizerFast"']),
    "umt5": (_set(model_type="umt5"), ["'umt5'"]),
    "longt5": (_set(model_type="longt5"), ["'longt5'"]),
    "switch": (_set(model_type="switch_transformers"), ["'switch_transformers'"]),
    "gptq": (_set(quantization_config={"quant_method": "gptq", "bits": 4}), ["quantization_config", "gptq"]),
    "bitsandbytes": (_set(quantization_config={"load_in_8bit": True}), ["quantization_config"]),
    "activation": (_set(dense_act_fn="relu"), ["feed_forward_proj", '"relu"']),
    "exact gelu": (_set(dense_act_fn="gelu"), ["dense_act_fn", '"gelu"']),
    "gate": (_set(is_gated_act=False), ["is_gated_act", "false"]),
    "data parallel": (_rename("module."), ['"module."', "model.module"]),
    "peft": (_rename("base_model.model."), ['"base_model.model."', "merge_and_unload"]),
    "compiled": (_rename("_orig_mod."), ['"_orig_mod."', "_orig_mod"]),
    "both": (_rename("_orig_mod.module."), ['"_orig_mod.module."']),
    "inside another": (_rename("generator.t5."), ['"generator.t5."', "by itself"]),
    "adapter": (
        _add("encoder.block.0.layer.0.SelfAttention.q.lora_A.default.weight"), ["lora_A", "merge_and_unload"],
    ),
}  # fmt: skip

CASES = {f"{kind} {name}": case for kind, cases in (("tokens", TOKENS), ("ids", IDS), ("kinds", KINDS))
         for name, case in cases.items()}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_t5_of_ours_is_named(folder: Path, case: str, tmp_path: Path) -> None:
    change, words = CASES[case]
    assert opened(folder).config.vocab_size == 136  # the control: the same folder before the change
    change(folder)
    for open_it in (lambda: opened(folder), lambda: convert_checkpoint(folder, tmp_path / "out")):
        with pytest.raises(InvalidModelError) as caught:
            open_it()
        for word in words:
            assert word in caught.value.message
        assert len(caught.value.message) < 600
        assert caught.value.message.isprintable()
    assert not (tmp_path / "out").exists()


def test_bytes_without_a_tokenizer_are_known_by_their_number(folder: Path) -> None:
    for name in ("spiece.model", "tokenizer_config.json", "tokenizer.json", "added_tokens.json"):
        (folder / name).unlink()
    assert opened(folder).vocabulary is None
    configure(folder, vocab_size=384)
    with pytest.raises(InvalidModelError, match="ByT5"):
        opened(folder)


def test_padding_is_no_added_token(spiece: Path, tmp_path: Path) -> None:
    config, found = fit_vocabulary(dataclasses.replace(TINY, padded_vocab_size=192), spiece)
    write_checkpoint(
        tmp_path / "m", config, weights(config).items(), to="hf", dtype=F32, vocabulary=found, source="test"
    )
    configure(tmp_path / "m", chorus_vocab_size=None)
    assert opened(tmp_path / "m").config.vocab_size == 136


def test_an_unknown_table_is_read_when_its_size_is_said(folder: Path) -> None:
    configure(folder, chorus_vocab_size=None)
    assert opened(folder, vocab_size=136).config.vocab_size == 136


def test_symbols_of_the_vocabulary_are_no_added_tokens(tmp_path: Path) -> None:
    """A fast tokenizer lists what the SentencePiece model defines itself; it splits there already."""
    path = train_vocabulary(tmp_path / "spiece.model", user_defined_symbols=["{", "<sep>"])
    vocabulary = Vocabulary.load(path)
    assert vocabulary.symbol("{") in vocabulary.encode("a{b")
    assert vocabulary.symbol("the") is vocabulary.symbol("\u2581the") is vocabulary.symbol("[") is None
    assert [vocabulary.symbol(text) for text in ("<pad>", "</s>", "<unk>")] == [0, 1, 2]
    config, found = fit_vocabulary(TINY, path)
    write_checkpoint(
        tmp_path / "m", config, weights(config).items(), to="hf", dtype=F32, vocabulary=found, source="test"
    )
    listed = [{"id": vocabulary.symbol(text), "content": text} for text in ("{", "<sep>", "</s>")]
    _put("tokenizer.json", {"added_tokens": listed})(tmp_path / "m")
    assert opened(tmp_path / "m").vocabulary == dataclasses.replace(
        found, path=tmp_path / "m" / "spiece.model"
    )


def test_dense_names_that_mean_the_same_are_read(folder: Path) -> None:
    for name in ("gelu_new", "gelu_pytorch_tanh"):
        configure(folder, dense_act_fn=name, is_gated_act=True)
        assert opened(folder).config.activation == "gelu"


@pytest.mark.parametrize("to", ["orbax", "t5x"])
def test_a_vocabulary_of_another_model_is_refused_in_every_format(
    spiece: Path, tmp_path: Path, to: Any
) -> None:
    """The id of `</s>` decides where texts end, in whatever format the weights are."""
    config, found = fit_vocabulary(TINY, spiece)
    write_checkpoint(
        tmp_path / "m", config, weights(config).items(), to=to, dtype=F32, vocabulary=found, source="test"
    )
    size = {} if to == "orbax" else {"vocab_size": config.vocab_size}
    assert read(tmp_path / "m", **size)
    other = train_vocabulary(tmp_path / "other.model", eos_id=3)
    with pytest.raises(InvalidModelError, match=r"eos_token_id 1, but other.model has </s> at 3"):
        opened(tmp_path / "m", vocabulary=other, **size)
    with pytest.raises(InvalidModelError, match="eos_token_id"):
        fit_vocabulary(TINY, other)
    assert find_vocabulary(tmp_path, other) is not None
