"""Text to ids and back with a T5 SentencePiece vocabulary and its sentinels.

Ids: first the pieces of the SentencePiece file, then `extra_ids` sentinels, of which `<extra_id_0>` is the
highest. Rows of the model beyond `size` are padding and have no text.
"""

from __future__ import annotations

import codecs
import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import sentencepiece

from chorus_server.errors import InputTooLongError, InvalidInputError, InvalidModelError
from chorus_server.model.utf8 import first_characters, last_characters

_SENTINEL = re.compile(r"<extra_id_(\d{1,6})>")
_SENTINEL_BYTES = re.compile(rb"<extra_id_(\d{1,6})>")
CONTROL_NAME = re.compile(r"</s>|<pad>|<unk>|<extra_id_\d{1,6}>")
"""Texts that look like a control token. They are spelled out instead of becoming one."""
_SPACE = "\u2581"
_MOST_BYTES = 64 << 20

LONGEST_WORD = 65_536
"""A word of up to this many characters is always encoded at once."""

_CHARACTERS_AN_ID = 8  # English text has about 4.5


Side = Literal["left", "right"]
"""Where a text is cut: at its start or at its end."""


class Vocabulary:
    """One SentencePiece vocabulary. Several threads may use it. Make it with `load`."""

    def __init__(self, processor: Any, extra_ids: int) -> None:
        self._processor = processor
        self._extra_ids = extra_ids
        self._pieces: int = processor.get_piece_size()
        self._inside = _sentinels_inside(processor)
        self._word_starts = _word_starts(processor)
        self._control = frozenset(
            id for id in range(self._pieces) if processor.is_control(id) or processor.is_unknown(id)
        ) | frozenset(self._inside.values())
        self.pad_id: int = max(processor.pad_id(), 0)
        self.eos_id: int = processor.eos_id()
        self.unk_id: int = processor.unk_id()

    @staticmethod
    def load(path: str | Path, extra_ids: int = 100) -> Vocabulary:
        """Read a `spiece.model`.

        Raises:
            InvalidModelError: there is no file, or it is not a SentencePiece model, or it has no `</s>`.
        """
        try:
            with Path(path).open("rb") as file:  # bounded: a device file may have no end
                data = file.read(_MOST_BYTES)
        except OSError as error:
            message = f"cannot read the vocabulary {path}: {error.strerror or error}"
            raise InvalidModelError(message, field="vocabulary") from error
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(data)
        except (RuntimeError, ValueError, TypeError) as error:
            message = f"{path} is not a SentencePiece model; a T5 checkpoint's is named spiece.model"
            raise InvalidModelError(message, field="vocabulary") from error
        if processor.get_piece_size() == 0 or processor.eos_id() < 0:
            message = f"the SentencePiece model {path} has no </s> piece, with which T5 ends its texts"
            raise InvalidModelError(message, field="vocabulary")
        return Vocabulary(processor, extra_ids)

    @property
    def size(self) -> int:
        """Pieces and sentinels, without the model's padding rows."""
        return self._pieces + self._extra_ids

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of every piece with its score (f32, little-endian) and kind, and of the number of
        sentinels."""
        hasher = hashlib.sha256()
        for id in range(self._pieces):
            piece = self._processor.id_to_piece(id).encode()
            kind = id in self._control, self._processor.is_byte(id)
            hasher.update(struct.pack("<If??", len(piece), self._processor.get_score(id), *kind) + piece)
        hasher.update(struct.pack("<I", self._extra_ids))
        return hasher.hexdigest()

    def encode(self, text: str, *, allow_sentinels: bool = False) -> list[int]:
        """Ids of a text, without `</s>`. Text never becomes a control id. `<extra_id_0>` becomes a sentinel
        only if that is allowed; otherwise it is spelled out like any other text.

        Raises:
            InvalidInputError: the text has a lone surrogate.
        """
        if not allow_sentinels:
            return self._encode_plain(text)
        ids: list[int] = []
        start = 0
        for match in _SENTINEL.finditer(text):
            sentinel = self._sentinel_or_none(int(match[1]))
            if sentinel is not None:
                ids += [*self._encode_plain(text[start : match.start()]), sentinel]
                start = match.end()
        return ids + self._encode_plain(text[start:])

    def encode_start(
        self, text: bytes, most: int, *, allow_sentinels: bool = False
    ) -> tuple[list[int], bool]:
        """The first ids of a text in UTF-8, exactly as `encode` gives them, and whether they are all. If not,
        there are more than `most`; a long text is then not encoded whole.

        Raises:
            InputTooLongError: nothing can be said about a long text without encoding it whole, because it
                begins with a word of `LONGEST_WORD` characters, or with as many characters that are almost
                all blank.
        """
        if allow_sentinels:
            return self._encode_start_with_sentinels(text, most)
        size = _CHARACTERS_AN_ID * (most + 2)
        while len(start := first_characters(text, size)) < len(text):
            ids = self._encode_pieces(start)
            # No piece spans two words, so the ids before the last word stay, whatever follows.
            last = next((n for n in reversed(range(len(ids))) if ids[n] in self._word_starts), 0)
            if last > most:
                return self._spell_sentinels(ids[:last]), False
            if size >= LONGEST_WORD:
                raise InputTooLongError(
                    f"The text begins with {size} characters that contain too few words to cut it: shorten "
                    "it.",
                    field="text",
                )
            size *= 4
        return self._encode_plain(text), True

    def encode_around(
        self,
        before: bytes,
        value: bytes,
        after: bytes,
        most: int,
        side: Side,
        *,
        allow_sentinels: bool = False,
    ) -> list[int] | None:
        """At most `most` ids of three texts joined, by leaving out ids of `value`, at its start or its end.

        They are the ids of the whole text without some. A value of more than `LONGEST_WORD` characters is cut
        to as many first.

        Args:
            side: where the value is cut.

        Returns:
            None if there are too many ids even without the value.

        Raises:
            InputTooLongError: as `encode_start`, about the two other texts.
        """
        if not self.encode_start(before + b" " + after, most, allow_sentinels=allow_sentinels)[1]:
            return None
        value = (
            last_characters(value, LONGEST_WORD) if side == "left" else first_characters(value, LONGEST_WORD)
        )
        # The blank before a word is part of its piece, so the value's first piece may begin before it.
        first, last = len(before.rstrip()), len(before) + len(value)
        pieces = self._places(before + value + after, allow_sentinels)
        inside = [
            place
            for place, (_, begin, end) in enumerate(pieces)
            if first <= begin and len(before) < end <= last
        ]
        excess = max(0, len(pieces) - most)
        if excess > len(inside):
            return None
        cut = set(inside[:excess] if side == "left" else inside[len(inside) - excess :])
        return [id for place, (id, _, _) in enumerate(pieces) if place not in cut]

    def decode(self, ids: Iterable[int], *, show_sentinels: bool = False) -> str:
        """Text of ids. Control ids, padding rows and, unless they are to be shown, sentinels have none, and
        spaces at both ends are removed, like in the reference implementation's decoding without special
        tokens."""
        stream = StreamDecoder(self, show_sentinels)
        return stream.push(ids) + stream.finish()

    def piece(self, id: int) -> str:
        """How an id is written: a piece with its leading `▁`, a sentinel, or `<unused_ID>` for a padding
        row."""
        if 0 <= id < self._pieces:
            piece: str = self._processor.id_to_piece(id)
            return piece
        return f"<extra_id_{self.size - 1 - id}>" if self._pieces <= id < self.size else f"<unused_{id}>"

    def symbol(self, text: str) -> int | None:
        """Id of a text that is never split: a sentinel, a control piece, or a symbol that was defined when
        the SentencePiece model was trained. None for any other text."""
        match = _SENTINEL.fullmatch(text.removeprefix(_SPACE))
        if match:
            return self._sentinel_or_none(int(match[1]))
        id: int = self._processor.piece_to_id(text)
        if id == self.unk_id or id in self._control:
            return id if self._processor.id_to_piece(id) == text else None
        # The score of a learned piece is a log probability, which is below 0.
        defined = self._processor.get_score(id) == 0 and not self._processor.is_byte(id)
        return id if defined else None

    def sentinel(self, index: int) -> int:
        """Id of `<extra_id_{index}>`.

        Raises:
            IndexError: the vocabulary has no such sentinel.
        """
        found = self._sentinel_or_none(index)
        if found is None:
            raise IndexError(f"no <extra_id_{index}>: the vocabulary has {self._extra_ids} sentinels")
        return found

    def common_pieces(self, count: int) -> list[int]:
        """Ids of the `count` most common pieces, commonest first, without control, byte and sentinel pieces;
        fewer if there are not so many."""
        processor = self._processor
        ordinary = [
            id
            for id in range(self._pieces)
            if id not in self._control and not processor.is_byte(id) and not processor.is_unused(id)
        ]
        # A unigram model's score is a log probability; a BPE model's score is the rank of the merge.
        return sorted(ordinary, key=lambda id: -processor.get_score(id))[:count]

    def spelling(self, id: int) -> str | int | None:
        """What an id adds to a text: characters, one byte (0 to 255), or nothing."""
        if id in self._control or not 0 <= id < self._pieces:
            return None
        piece: str = self._processor.id_to_piece(id)
        return int(piece[3:-1], 16) if self._processor.is_byte(id) else piece.replace(_SPACE, " ")

    def sentinel_text(self, id: int) -> str | None:
        """`<extra_id_0>` for that sentinel's id; None for an id that is no sentinel."""
        inside = next((index for index, own in self._inside.items() if own == id), None)
        if inside is not None:
            return f"<extra_id_{inside}>"
        return self.piece(id) if self._pieces <= id < self.size else None

    def _encode_plain(self, text: str | bytes) -> list[int]:
        return self._spell_sentinels(self._encode_pieces(text))

    def _encode_start_with_sentinels(self, text: bytes, most: int) -> tuple[list[int], bool]:
        ids: list[int] = []
        for part, _, sentinel in self._parts(text):
            if len(ids) > most:
                return ids, False
            more, whole = self.encode_start(part, most - len(ids))
            ids += more
            if not whole:
                return ids, False
            ids += () if sentinel is None else (sentinel,)
        return ids, True

    def _parts(self, text: bytes) -> Iterator[tuple[bytes, int, int | None]]:
        """The text between sentinels: each part, where it begins, and the sentinel after it."""
        start = 0
        for match in _SENTINEL_BYTES.finditer(text):
            sentinel = self._sentinel_or_none(int(match[1]))
            if sentinel is not None:
                yield text[start : match.start()], start, sentinel
                start = match.end()
        yield text[start:], start, None

    def _places(self, text: bytes, allow_sentinels: bool) -> list[tuple[int, int, int]]:
        """Every id with the bytes of the text, from and to, that it stands for."""
        parts = self._parts(text) if allow_sentinels else [(text, 0, None)]
        found: list[tuple[int, int, int]] = []
        for part, start, sentinel in parts:
            end = start + len(part)
            for piece in self._processor.encode(part, return_type="proto").pieces:
                spelled = self._spell_sentinels([piece.id])
                found += [(id, start + piece.begin, start + piece.end) for id in spelled]
            if sentinel is not None:
                found.append((sentinel, end, end + 1))
        return found

    def _encode_pieces(self, text: str | bytes) -> list[int]:
        try:
            ids: list[int] = self._processor.encode(text)
        except (RuntimeError, UnicodeEncodeError) as error:
            raise InvalidInputError(
                "the text is not valid Unicode (a lone surrogate)", field="text"
            ) from error
        return ids

    def _spell_sentinels(self, ids: list[int]) -> list[int]:
        if self._inside and not self._control.isdisjoint(ids):
            return [part for id in ids for part in self._spell_out(id)]
        return ids

    def _spell_out(self, id: int) -> Sequence[int]:
        """A sentinel that the SentencePiece file itself contains would match in text, so write its characters
        instead."""
        if id not in self._inside.values():
            return (id,)
        return [self._processor.piece_to_id(character) for character in self._processor.id_to_piece(id)]

    def _sentinel_or_none(self, index: int) -> int | None:
        if 0 <= index < self._extra_ids:
            return self.size - 1 - index
        return self._inside.get(index)


def _sentinels_inside(processor: Any) -> dict[int, int]:
    """Sentinel index to id, for files that have the sentinels as pieces (mT5's)."""
    found = {}
    for id in range(processor.get_piece_size()):
        match = _SENTINEL.fullmatch(processor.id_to_piece(id).removeprefix(_SPACE))
        if match:
            found[int(match[1])] = id
    return found


def _word_starts(processor: Any) -> frozenset[int]:
    """Ids of the pieces that begin a word; empty if a piece may span words."""
    pieces = [processor.id_to_piece(id) for id in range(processor.get_piece_size())]
    if _SPACE not in pieces or any(_SPACE in piece[1:] for piece in pieces):
        return frozenset()
    return frozenset(id for id, piece in enumerate(pieces) if piece.startswith(_SPACE))


class StreamDecoder:
    """Decodes tokens as they come. The deltas and `finish()`, joined, are `vocabulary.decode` of all tokens.

    Two things are held back until it is known what follows: spaces, because they are removed at the end of a
        text; and the first bytes of a character that several byte pieces spell.
    """

    def __init__(self, vocabulary: Vocabulary, show_sentinels: bool = False) -> None:
        self._vocabulary = vocabulary
        self._show_sentinels = show_sentinels
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._spaces = ""
        self._started = False

    def push(self, tokens: Iterable[int]) -> str:
        """The text that these tokens make certain."""
        return self._emit("".join(self._text(token) for token in tokens))

    def finish(self) -> str:
        """The rest: a replacement character if the tokens end inside a character, else nothing."""
        return self._emit(self._bytes.decode(b"", final=True))

    def _text(self, token: int) -> str:
        sentinel = self._vocabulary.sentinel_text(token) if self._show_sentinels else None
        if sentinel is not None:
            broken = self._bytes.decode(b"", final=True)
            self._bytes.reset()
            return f"{broken} {sentinel}"
        spelling = self._vocabulary.spelling(token)
        if spelling is None:
            return ""
        if isinstance(spelling, int):
            return self._bytes.decode(bytes((spelling,)))
        broken = self._bytes.decode(b"", final=True)
        self._bytes.reset()
        return broken + spelling

    def _emit(self, text: str) -> str:
        text = self._spaces + text
        if not self._started:
            text = text.lstrip()
        visible = text.rstrip()
        self._spaces = text[len(visible) :]
        self._started = self._started or bool(visible)
        return visible
