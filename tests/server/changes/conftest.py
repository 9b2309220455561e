from __future__ import annotations

from tests.server.api.conftest import patient_server

__all__ = ["patient_server"]  # a fixture
