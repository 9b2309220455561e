from __future__ import annotations

from pathlib import Path

import pytest

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.documents import read_json


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"d_model": 8, "d_model": 16}', "config.json is not valid JSON: a key occurs twice"),
        ('{"initializer_factor": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "config.json is not valid JSON"),
        ("[1]", "config.json must contain a JSON object"),
    ],
    ids=["twice", "nan", "deep", "list"],
)
def test_what_is_no_strict_json_object_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidModelError, match=why):
        read_json(tmp_path / "config.json")


def test_a_strict_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"d_model": 8, "eps": 1e-06}')
    assert read_json(tmp_path / "config.json") == {"d_model": 8, "eps": 1e-06}
