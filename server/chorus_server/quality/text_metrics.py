"""Metrics that compare texts: SQuAD's two, ROUGE-L, and plain equality. See `metrics.py`."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

Answers = Sequence[Sequence[str]]
"""Accepted answers of each example, the first one the target."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE_WORDS = re.compile(r"[a-z0-9]+")


def accuracy(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Share of predictions that are, but for spaces at the ends, an accepted answer."""
    right = [
        said.strip() in {each.strip() for each in known} for said, known in with_answers(predictions, answers)
    ]
    return sum(right) / len(right)


def squad_em(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Share of predictions equal to an accepted answer after SQuAD's normalisation (case, punctuation,
    articles, spaces): `-5` equals `5`, `C++` equals `C`, and what is empty equals `the`."""
    right = [
        normalised(said) in {normalised(each) for each in known}
        for said, known in with_answers(predictions, answers)
    ]
    return sum(right) / len(right)


def squad_f1(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Mean over examples of the best word overlap F1 with an accepted answer, after SQuAD's normalisation; 0
    where no word is left in common."""
    best = [max(_word_f1(said, each) for each in known) for said, known in with_answers(predictions, answers)]
    return sum(best) / len(best)


def rouge_l(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """ROUGE-L (Lin 2004): mean over examples of the best F1 of the longest common subsequence of words with
    an accepted answer. Words are runs of `a-z0-9` in lower case, not stemmed, as in the package `rouge-score`
    that T5 uses; a text without such words has 0."""
    best = [max(_lcs_f1(said, each) for each in known) for said, known in with_answers(predictions, answers)]
    return sum(best) / len(best)


def normalised(text: str) -> str:
    """SQuAD's: lower case, without punctuation and articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def with_answers(predictions: Sequence[str], answers: Answers) -> list[tuple[str, Sequence[str]]]:
    """Each prediction with its accepted answers."""
    return list(zip(predictions, answers, strict=True))


def _word_f1(said: str, known: str) -> float:
    a, b = normalised(said).split(), normalised(known).split()
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if common else 0.0


def _lcs_f1(said: str, known: str) -> float:
    a, b = _ROUGE_WORDS.findall(said.lower()), _ROUGE_WORDS.findall(known.lower())
    return 2 * LCSseq.similarity(a, b) / (len(a) + len(b)) if a and b else 0.0
