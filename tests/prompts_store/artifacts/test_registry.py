"""Formats of prompt files: what the registry has, the type and the client name too."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from chorus import artifacts as client
from prompts_store.artifacts import FORMATS, ArtifactFormat


def test_the_type_names_what_is_registered() -> None:
    assert get_args(ArtifactFormat) == tuple(FORMATS)


def test_the_client_knows_the_same_formats() -> None:
    assert tuple(FORMATS) == client.FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_the_client_tells_a_format_by_its_suffix(name: ArtifactFormat) -> None:
    assert client.format_of(Path("prompt").with_suffix(FORMATS[name].suffix)) == name
