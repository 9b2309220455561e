"""Job documents that 0.1.0 stored are read as they were meant, and go on from their checkpoints."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chorus_server.tuning.document.earlier_names import renamed_spec
from chorus_server.tuning.document.job import JobDocument
from prompts_store.digests import canonical_json
from prompts_store.store import PromptStore
from tests.places import FIXTURES

FILE = FIXTURES / "tuning" / "stored_by_0_1_0.json"
DOCUMENTS: dict[str, dict[str, Any]] = json.loads(FILE.read_text("utf-8"))

LATER = {"answer_by": "ranked", "labels_from_data": False}
"""Fields of a prompt that 0.1.0 did not have, as it meant them."""


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_stored_document_of_before_comes_back_from_the_store(name: str, tmp_path: Path) -> None:
    document = DOCUMENTS[name]
    with closing(PromptStore.open(tmp_path)) as store:
        made = store.create_job("acme", "tuning", document, created_by="us")
        kept = store.get_job("acme", made.id).spec
        claimed = store.claim_job("tuning", "a runner", 60, document["base_fingerprint"])
    assert claimed is not None and claimed[0].id == made.id
    spec = JobDocument.from_json(kept).for_base(document["base_fingerprint"])
    expected = {"metadata": {}, **renamed_spec(document)}
    expected["prompts"] = [{**LATER, **prompt} for prompt in expected["prompts"]]
    assert spec.to_json() == expected
    # A checkpoint is of one recipe, by these bytes: a job that was under way goes on.
    for prompt, stored in zip(spec.prompts, expected["prompts"], strict=True):
        assert canonical_json(prompt.to_json()) == canonical_json(stored)
        assert canonical_json(prompt.recipe.to_json()) == canonical_json(stored["recipe"])
