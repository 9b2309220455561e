"""Sentences of product reviews with people's ratings: where SST-2's prompts meet another domain.

Hutto and Gilbert 2014, 3,708 sentences rated from -4 to 4 by twenty people each, MIT licence, in the source
distribution of a Python package:

    pip download --no-deps --no-binary :all: -d build/quality_data vaderSentiment==3.3.2
"""

from __future__ import annotations

import io
import tarfile
from functools import lru_cache

from benchmarks.tuning.results import ROOT
from chorus_server.tuning.data.examples import TextRow

SDIST = ROOT / "build" / "quality_data" / "vaderSentiment-3.3.2.tar.gz"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILE = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"
CLEAR = 1.0
"""Least size of a mean rating that counts as negative or positive; between them lies what is neither."""


@lru_cache
def amazon_rows() -> tuple[TextRow, ...]:
    """The clearly rated sentences, in the file's order."""
    return tuple(clear_rows(source().decode("utf-8", "replace")))


def source() -> bytes:
    """The file."""
    with tarfile.open(SDIST) as outer:
        packed = outer.extractfile(INNER)
        assert packed is not None
        with tarfile.open(fileobj=io.BytesIO(packed.read())) as inner:
            file = inner.extractfile(FILE)
            assert file is not None
            return file.read()


def clear_rows(text: str) -> list[TextRow]:
    """Lines of id, rating and sentence, parted by tabs, to rows of SST-2's labels."""
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        _, rating, sentence = line.split("\t", 2)
        if abs(float(rating)) >= CLEAR and sentence.strip():
            label = "positive" if float(rating) > 0 else "negative"
            rows.append(TextRow(number, sentence.strip(), (label,)))
    return rows
