"""The start of a long text is tokenised exactly as the whole text is, without tokenising the whole."""

from __future__ import annotations

import io

import pytest
import sentencepiece
from hypothesis import find, given, settings
from hypothesis import strategies as st

from chorus_server.errors import InputTooLongError
from chorus_server.model import vocabulary as module
from chorus_server.model.vocabulary import LONGEST_WORD, Vocabulary
from tests.places import ROOT, SHARED

REAL = SHARED / "models/flan-t5-small-title/spiece.model"

WORDS = (ROOT / "docs/architecture.md").read_text().split()
SPACES = [
    " ",
    "  ",
    "\t",
    "\n",
    "\u00a0",
    "\u3000",
    "\u2028",
    "\u200b",
    " \u0308",
    "\u00a8",
    "\ufdfa",
    "\u2581",
]
PIECES = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(SPACES),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.text("abc\u0301\u0308\u1100\u1161\uff76\uff9e<extra_id_0>", max_size=20),
    st.builds(lambda letter, count: letter * count, st.sampled_from("ab\u4e2d0"), st.integers(1, 60)),
)
TEXTS = st.lists(PIECES, max_size=80).map("".join)
PROFILE = {"deadline": None, "derandomize": True, "database": None}


def trained(**more: object) -> Vocabulary:
    model = io.BytesIO()
    lines = [" ".join(WORDS[n : n + 12]) for n in range(len(WORDS) - 12)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=400, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, hard_vocab_limit=False, minloglevel=2, **more,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.getvalue())
    return Vocabulary(processor, 0)


@pytest.fixture(scope="module")
def vocabularies() -> dict[str, Vocabulary]:
    found = {
        "shipped": Vocabulary.load(ROOT / "base_model/model/spiece.model"),
        "of bytes": trained(byte_fallback=True),
        "of pairs": trained(model_type="bpe"),
        "sentinels inside": trained(user_defined_symbols=["<extra_id_0>", "\u2581<extra_id_1>"]),
        "pieces of several words": trained(split_by_whitespace=False),
        "spaces behind": trained(treat_whitespace_as_suffix=True),
    }
    if REAL.exists():
        found["T5's"] = Vocabulary.load(REAL)
    return found


@settings(max_examples=400, **PROFILE)
@given(text=TEXTS, most=st.sampled_from([0, 1, 2, 5, 12]))
def test_the_first_ids_are_those_of_the_whole(
    vocabularies: dict[str, Vocabulary], text: str, most: int
) -> None:
    for name, vocabulary in vocabularies.items():
        whole = vocabulary.encode(text)
        ids, complete = vocabulary.encode_start(text.encode(), most)
        assert ids == whole[: len(ids)], name
        assert complete == (ids == whole) or len(ids) > most, name
        assert len(ids) > most or complete, name


def test_the_control_keeps_a_word_that_is_cut(vocabularies: dict[str, Vocabulary]) -> None:
    """Without what is dropped, the ids are others: `find` raises where they never are."""
    vocabulary = vocabularies["shipped"]

    def differs(text: str) -> bool:
        ids = vocabulary.encode(text[: len(text) // 2])
        return ids != vocabulary.encode(text)[: len(ids)]

    find(TEXTS, differs, settings=settings(max_examples=200, **PROFILE))


def test_a_long_text_is_not_encoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = Vocabulary.load(ROOT / "base_model/model/spiece.model")
    encoded: list[int] = []
    encode = vocabulary._encode_pieces
    monkeypatch.setattr(
        vocabulary, "_encode_pieces", lambda text: (encoded.append(len(text)), encode(text))[1]
    )
    ids, complete = vocabulary.encode_start(" ".join(WORDS * 500).encode(), 512)
    assert (len(ids) > 512, complete) == (True, False)
    assert sum(encoded) < 6_000


@pytest.mark.parametrize("text", ["a" * 1_000_000, " " * 999_999 + "a", "\u337f" * 1_000_000])
def test_a_text_that_cannot_be_cut_is_refused(text: str) -> None:
    vocabulary = Vocabulary.load(ROOT / "base_model/model/spiece.model")
    with pytest.raises(InputTooLongError, match="too few words to cut it"):
        vocabulary.encode_start(text.encode(), 512)
    assert vocabulary.encode_start(text[: LONGEST_WORD // 4].encode(), 512)[1]
    assert module.LONGEST_WORD == LONGEST_WORD
