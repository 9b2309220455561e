"""Parity must not quietly stop being tested: a skip that is not on the list below is a failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MAY_SKIP = frozenset({"test_real_model_parity.py::test_the_real_model_agrees_with_the_reference"})
"""Tests that need ../shared, without their parameters. Everything else runs from the committed fixtures."""

HERE = Path(__file__).parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    report: Any = yield
    name = "::".join(item.nodeid.split("[")[0].split("/")[-1].split("::"))
    if report.skipped and item.path.parent == HERE and name not in MAY_SKIP:
        report.outcome = "failed"
        report.longrepr = f"{name} was skipped ({report.longrepr}) and is not on tests/parity's list"
    return report  # type: ignore[return-value]


@pytest.fixture(scope="session")
def fixtures() -> Path:
    return HERE.parent / "fixtures" / "parity"


@pytest.fixture(scope="session")
def real_model() -> Path:
    from tests.places import SHARED

    folder = SHARED / "models" / "flan-t5-small-title"
    if not (folder / "model.safetensors").is_file():
        pytest.skip("the real model is not here: set CHORUS_SHARED to the folder that holds models/")
    return folder
