from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chorus_server.engine.ladder import build_ladder, tiny_ladder
from chorus_server.engine.system_fingerprint import system_fingerprint

FACTS: dict[str, Any] = {
    "base_fingerprint": "a" * 64, "compute_dtype": "float32", "matrix_dtype": "bfloat16", "jaxlib": "0.10.2",
    "ladder": tiny_ladder(),
}  # fmt: skip


def test_it_is_short_and_the_same_in_every_process() -> None:
    assert system_fingerprint(**FACTS) == "fp_f3dff6c80f72a0b6"


@pytest.mark.parametrize(
    "change",
    [
        {"base_fingerprint": "b" * 64}, {"compute_dtype": "bfloat16"}, {"matrix_dtype": "float32"},
        {"jaxlib": "0.10.3"}, {"ladder": build_ladder()}, {"ladder": replace(tiny_ladder(), rows_per_load=7)},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_whatever_changes_the_rounding_changes_it(change: dict[str, Any]) -> None:
    assert system_fingerprint(**{**FACTS, **change}) != system_fingerprint(**FACTS)
