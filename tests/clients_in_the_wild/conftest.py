"""Environments with clients that others wrote, each pinned in a file, and one server for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.served import Served
from tests.pip_environment import pip_environment

HERE = Path(__file__).parent
SHAPES = {
    "shapes": "input_lengths=256 batch_rows=4 blocks=256x64x4 score_buckets=4x64",
    "layout": "scanned",
}
"""What these tests need: room for a long state, for a stream that somebody leaves, and labels."""


@pytest.fixture(scope="session")
def openai_3() -> Path:
    """The Python of an environment with OpenAI's client 3, TypeSafe's and jevcompat."""
    return pip_environment(HERE / "openai_3.txt") / "python"


@pytest.fixture(scope="session")
def openai_2() -> Path:
    """The Python of an environment with OpenAI's client 2 and libraries that need it."""
    return pip_environment(HERE / "openai_2.txt") / "python"


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory, compiled_folder: Path) -> Iterator[Served]:
    """A server of the base and the tasks that ship. Tests that make keys revoke them: it is open without."""
    names = "jev-latest=sentiment"
    data = tmp_path_factory.mktemp("data")
    with Served(data, compile_cache_dir=compiled_folder, decision_models=names, **SHAPES) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def key_of(shipped: Served) -> Iterator[Callable[..., str]]:
    """Makes a key of a tenant, and the tenant if there is none. When the module's tests have run, the server
    is open again."""
    theirs = ["infer", "prompts:read", "prompts:write", "tune"]
    every = [*theirs, "metrics:read", "admin", "operator"]
    operator = shipped.post("/v1/keys", {"name": "operator", "scopes": every})
    shipped.http.headers["authorization"] = f"Bearer {operator['key']}"
    made = []

    def make(tenant: str, **limits: Any) -> str:
        known = shipped.http.post("/v1/tenants", json={"name": tenant})
        assert known.status_code in (201, 409), known.text
        body = {"name": f"{tenant}-{len(made)}", "scopes": theirs, "limits": limits}
        made.append(shipped.post(f"/v1/keys?tenant={tenant}", body) | {"tenant": tenant})
        return str(made[-1]["key"])

    yield make
    for key in made:
        gone = shipped.http.delete(f"/v1/keys/{key['id']}?tenant={key['tenant']}")
        assert gone.status_code == 200, gone.text
    assert shipped.http.delete(f"/v1/keys/{operator['id']}").status_code == 200
    del shipped.http.headers["authorization"]
