"""Text to ids and back, with a small SentencePiece model that spells unknown characters in bytes."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.errors import InvalidInputError, InvalidModelError
from chorus_server.model.vocabulary import Side, StreamDecoder, Vocabulary

SENTENCE = "the river was cold and the boat was old so they went home to read a book about the sea"


def _train(path: Path, **more: object) -> Path:
    model = io.BytesIO()
    words = SENTENCE.split()
    lines = [" ".join(words[n:] + words[:n]) for n in range(len(words))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=310, byte_fallback=True, pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2, **more,
    )  # fmt: skip
    path.write_bytes(model.getvalue())
    return path


@pytest.fixture(scope="module")
def spiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _train(tmp_path_factory.mktemp("vocabulary") / "spiece.model")


@pytest.fixture(scope="module")
def vocabulary(spiece: Path) -> Vocabulary:
    return Vocabulary.load(spiece)


def test_text_comes_back(vocabulary: Vocabulary) -> None:
    text = "the old boat went to the sea"
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert vocabulary.decode([0, *ids, 1, 0, 0]) == text


def test_special_ids(vocabulary: Vocabulary) -> None:
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    assert vocabulary.sentinel(0) == vocabulary.size - 1
    assert vocabulary.sentinel(99) == vocabulary.size - 100
    assert vocabulary.piece(vocabulary.size - 1) == "<extra_id_0>"
    assert vocabulary.piece(vocabulary.size) == f"<unused_{vocabulary.size}>"
    with pytest.raises(IndexError, match="no <extra_id_100>"):
        vocabulary.sentinel(100)


@pytest.mark.parametrize("text", ["</s>", "<pad>", "<unk>", "<extra_id_0>", "a</s>b<extra_id_99>", "<0x41>"])
def test_text_never_becomes_a_control_id(vocabulary: Vocabulary, text: str) -> None:
    ids = vocabulary.encode(text)
    assert not {0, 1, 2, *range(vocabulary.size - 100, vocabulary.size)} & set(ids)
    assert vocabulary.decode(ids) == text


def test_sentinels_when_asked_for(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode("the <extra_id_0> was <extra_id_1> <extra_id_100>", allow_sentinels=True)
    assert [id for id in ids if id >= vocabulary.size - 100] == [vocabulary.size - 1, vocabulary.size - 2]
    assert vocabulary.decode(ids) == "the was <extra_id_100>"


def test_sentinels_inside_the_file_are_not_matched_in_text_either(tmp_path: Path) -> None:
    path = _train(tmp_path / "spiece.model", user_defined_symbols=["<extra_id_0>", "<extra_id_1>"])
    inside = Vocabulary.load(path, extra_ids=0)
    sentinel = inside.sentinel(0)
    assert inside.piece(sentinel) == "<extra_id_0>"
    assert sentinel not in inside.encode("the <extra_id_0> sea")
    assert sentinel in inside.encode("the <extra_id_0> sea", allow_sentinels=True)
    assert sentinel not in inside.common_pieces(10_000)


def test_common_pieces_are_ordinary_and_ordered(vocabulary: Vocabulary) -> None:
    pieces = vocabulary.common_pieces(20)
    assert len(pieces) == 20
    assert vocabulary.piece(pieces[0]) in {"▁the", "▁", "e", "o"}
    everything = vocabulary.common_pieces(10_000)
    assert len(everything) == len(set(everything)) == vocabulary.size - 100 - 3 - 256
    assert not any(vocabulary.piece(id).startswith("<") for id in everything)


def test_digest_depends_on_pieces_and_sentinels(spiece: Path, tmp_path: Path) -> None:
    digest = Vocabulary.load(spiece).digest
    assert digest == Vocabulary.load(spiece).digest
    assert digest != Vocabulary.load(spiece, extra_ids=99).digest
    other = _train(tmp_path / "other.model", user_defined_symbols=["zebra"])
    assert digest != Vocabulary.load(other).digest


def test_a_lone_surrogate_is_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(InvalidInputError, match="lone surrogate"):
        vocabulary.encode("a\ud800b")


@pytest.mark.parametrize("content", [b"", b"junk that is no model"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError) as error:
        Vocabulary.load(path)
    assert error.value.field == "vocabulary"


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="cannot read the vocabulary"):
        Vocabulary.load(tmp_path / "none.model")


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_deltas_joined_are_the_whole_text(vocabulary: Vocabulary, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, vocabulary.size + 20), max_size=30))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=6)))
    stream = StreamDecoder(vocabulary)
    edges = [0, *cuts, len(ids)]
    deltas = [stream.push(ids[a:b]) for a, b in itertools.pairwise(edges)]
    assert "".join([*deltas, stream.finish()]) == vocabulary.decode(ids)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N", "P", "So"]), max_size=20))
def test_characters_of_several_bytes_are_never_cut(vocabulary: Vocabulary, text: str) -> None:
    """Token by token no replacement character shows, unless the text itself has one."""
    stream = StreamDecoder(vocabulary)
    ids = vocabulary.encode(text)
    said = "".join([*(stream.push([id]) for id in ids), stream.finish()])
    assert said == vocabulary.decode(ids)
    assert "\ufffd" in text or "\ufffd" not in said


def test_an_unfinished_character_is_replaced_at_the_end(vocabulary: Vocabulary) -> None:
    start = next(id for id in vocabulary.encode("😀") if vocabulary.piece(id) == "<0xF0>")
    stream = StreamDecoder(vocabulary)
    assert stream.push([start]) == ""
    assert stream.finish() == "\ufffd"


@pytest.mark.parametrize(
    "text", ["<extra_id_0> the boat <extra_id_1> sea", "the <extra_id_99>", "<extra_id_7>"]
)
def test_sentinels_come_back_where_they_are_shown(vocabulary: Vocabulary, text: str) -> None:
    ids = vocabulary.encode(text, allow_sentinels=True)
    assert vocabulary.decode(ids, show_sentinels=True) == text
    assert "<" not in vocabulary.decode(ids)
    stream = StreamDecoder(vocabulary, show_sentinels=True)
    assert "".join([*(stream.push([id]) for id in ids), stream.finish()]) == text


@given(
    words=st.lists(st.sampled_from(SENTENCE.split()), max_size=30),
    most=st.integers(0, 90),
    side=st.sampled_from(["left", "right"]),
    sentinels=st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_ids_around_a_field_are_those_of_the_whole_text_without_some(
    vocabulary: Vocabulary, words: list[str], most: int, side: Side, sentinels: bool
) -> None:
    before, value, after = "read: ", " ".join([*words, "<extra_id_3>"]), " about the sea"
    whole = vocabulary.encode(before + value + after, allow_sentinels=sentinels)
    parts = before.encode(), value.encode(), after.encode()
    ids = vocabulary.encode_around(*parts, most, side, allow_sentinels=sentinels)
    start, end = vocabulary.encode(before), vocabulary.encode(after)
    if ids is None:
        assert most < len(start) + len(end)
        return
    kept = min(len(whole), most)
    assert len(ids) == kept and ids[: len(start)] == start and ids[kept - len(end) :] == end
    cut = whole[len(start) : len(whole) - len(end)]
    inside = kept - len(start) - len(end)
    if kept == len(whole):
        assert ids == whole
    elif side == "right":
        assert ids[len(start) : len(start) + inside] == cut[:inside]
    else:
        assert ids[len(start) : len(start) + inside] == cut[len(cut) - inside :]
