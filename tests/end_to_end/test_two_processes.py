"""Two processes on one data folder: each goes by what the other changed, by itself. How soon is measured in
`benchmarks/keys.py`; here it only has to come.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.end_to_end.served import TINY, Served
from tests.server.api.api_harness import eventually

pytestmark = pytest.mark.usefixtures("compiled_quickly")  # beside the tests, which do not wait for it
OPERATOR = "an-operator-of-tests-0123456789"


class Two:
    """The processes as the operator and as others see them. None of this needs the model, so nobody waits
    for it."""

    def __init__(self, servers: list[Served]) -> None:
        self.urls = [server.wait_listening() for server in servers]

    def operate(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """At the first one."""
        answer = self.send(method, path, body)
        assert answer.status_code in (200, 201), answer.text
        found: dict[str, Any] = answer.json()
        return found

    def send(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        headers = {"authorization": f"Bearer {OPERATOR}"}
        return httpx2.request(method, self.urls[0] + path, json=body, headers=headers, timeout=300)

    def status(self, key: str) -> int:
        """What the second one says to a key."""
        headers = {"authorization": f"Bearer {key}"}
        return httpx2.get(f"{self.urls[1]}/v1/me", headers=headers, timeout=300).status_code

    def key(self, name: str, **body: Any) -> dict[str, Any]:
        return self.operate("POST", "/v1/keys?tenant=acme", {"name": name, "scopes": ["infer"], **body})


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, compile_cache: Path) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("two")
    file = folder / "operator"
    file.write_text(OPERATOR)
    options = {"model": tiny_model, "compile_cache_dir": compile_cache, "operator_key_file": file, **TINY}
    with Served(folder / "data", **options) as first, Served(folder / "data", **options) as second:
        made = Two([first, second])
        made.operate("POST", "/v1/tenants", {"name": "acme"})
        yield made


def test_a_revocation_reaches_the_other_process(two: Two) -> None:
    key = two.key("revoked")
    eventually(lambda: two.status(key["key"]) == 200)
    two.operate("DELETE", f"/v1/keys/{key['id']}?tenant=acme")
    eventually(lambda: two.status(key["key"]) == 401)


def test_a_suspension_and_its_end_reach_the_other_process(two: Two) -> None:
    key = two.key("suspended")["key"]
    eventually(lambda: two.status(key) == 200)
    two.operate("POST", "/v1/tenants/acme/suspend")
    eventually(lambda: two.status(key) == 403)
    two.operate("POST", "/v1/tenants/acme/resume")
    eventually(lambda: two.status(key) == 200)


def test_an_expiry_reaches_the_other_process(two: Two) -> None:
    made: list[str] = []
    soon = [datetime.now(UTC)]

    def expiring() -> bool:
        """Once it is made before it expires, which a busy machine may not manage at first."""
        soon[0] = datetime.now(UTC) + timedelta(seconds=3)
        body = {"name": "expiring", "scopes": ["infer"], "expires_at": soon[0].isoformat()}
        answer = two.send("POST", "/v1/keys?tenant=acme", body)
        assert answer.status_code in (201, 400), answer.text
        made.extend([answer.json()["key"]] if answer.status_code == 201 else [])
        return bool(made)

    eventually(expiring)
    eventually(lambda: two.status(made[0]) == 401)
    assert datetime.now(UTC) >= soon[0]
