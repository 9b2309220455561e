"""What the `model` of a body means."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus_server.api.openai.model_names import model_id, reference_of
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("mood", "mood"),
        ("mood@3", "mood@3"),
        ("acme/mood@live", "acme/mood@live"),
        ("base", None),
        ("tiny", None),
        ("gpt-4o", "mood@1"),
        ("gpt-4o-mini", None),
    ],
)
def test_a_name_is_a_reference_the_base_or_mapped(
    tmp_path: Path, vocabulary: Vocabulary, name: str, meaning: str | None
) -> None:
    mapped = ["gpt-4o=mood@1", "gpt-4o-mini=base"]
    with ApiServer(tmp_path, vocabulary, decision_models=mapped) as api:
        assert reference_of(api.services, name) == meaning


def test_a_tenants_own_versions_need_no_slash() -> None:
    assert model_id("acme", "mood", 3, "acme") == "mood@3"
    assert model_id("acme", "mood", 3, "other") == "acme/mood@3"
