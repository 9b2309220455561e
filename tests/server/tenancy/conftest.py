from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.api.conftest import patient_server
from tests.server.tenancy.house import House

__all__ = ["patient_server"]  # a fixture


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path)
    yield found
    found.store.close()
