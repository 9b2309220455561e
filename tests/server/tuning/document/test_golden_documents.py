"""Documents that are taken and refused, with the exact stored form, code, dotted field and message."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.tuning.document.golden_documents import cases, outcome, recorded

CASES = cases()
PLAIN = CASES[0]


def test_the_plain_document_is_stored_with_everything_written_out() -> None:
    assert outcome(PLAIN["document"]) == {"stored": PLAIN["stored"]}


@pytest.mark.parametrize("case", CASES[1:], ids=lambda case: case["case"])
def test_a_document_has_its_known_outcome(case: dict[str, Any]) -> None:
    found = recorded(case["document"], PLAIN["stored"])
    assert found == {name: case[name] for name in ("stored", "refused") if name in case}
