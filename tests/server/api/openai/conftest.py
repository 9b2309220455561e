from __future__ import annotations

import pytest

from tests.server.api.api_harness import ApiServer


@pytest.fixture(scope="module")
def stocked(api: ApiServer) -> ApiServer:
    """Tasks of every kind of template."""
    api.push("mood", labels=["good", "bad"])
    api.push("told", seed=1, template="{system} | {history} | {text}")
    api.push("pair", seed=2, template="{premise} {hypothesis}")
    api.push("ruled", seed=3, template="{system} {premise} {hypothesis}")
    return api
