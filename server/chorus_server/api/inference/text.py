"""From tokens to text: whole answers, streamed pieces, and texts cut at stop strings."""

from __future__ import annotations

from collections.abc import Sequence

from chorus_server.model.vocabulary import StreamDecoder, Vocabulary


def final_text(
    vocabulary: Vocabulary, tokens: Sequence[int], stop: Sequence[str], show_sentinels: bool = False
) -> str:
    """The answer's text, cut before the first stop string."""
    return cut_at_stop(vocabulary.decode(list(tokens), show_sentinels=show_sentinels), stop)


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the earliest stop string."""
    places = [place for place in (text.find(word) for word in stop) if place >= 0]
    return text[: min(places)] if places else text


class TextStream:
    """Pieces of one sequence's text as its tokens come. Joined, including the one from `finish`, they are its
    final text.

    A piece that may be the beginning of a stop string is held back until later tokens decide.
    """

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str], show_sentinels: bool = False) -> None:
        self._vocabulary = vocabulary
        self._show_sentinels = show_sentinels
        self._decoder = StreamDecoder(vocabulary, show_sentinels)
        self._stop = stop
        self._seen = ""
        self._sent = 0

    def push(self, tokens: Sequence[int]) -> str:
        """The new text that may be shown after these tokens."""
        self._seen += self._decoder.push(list(tokens))
        return self._advance(self._safe_length())

    def finish(self, tokens: Sequence[int]) -> str:
        """The rest of the text, given all tokens of the sequence."""
        self._seen = final_text(self._vocabulary, tokens, self._stop, self._show_sentinels)
        return self._advance(len(self._seen))

    def _advance(self, end: int) -> str:
        start, self._sent = self._sent, max(self._sent, end)
        return self._seen[start : self._sent]

    def _safe_length(self) -> int:
        cut = len(cut_at_stop(self._seen, self._stop))
        if cut < len(self._seen):
            return cut
        kept = 0
        for word in self._stop:
            for size in range(min(len(word) - 1, len(self._seen)), kept, -1):
                if self._seen.endswith(word[:size]):
                    kept = size
                    break
        return len(self._seen) - kept
