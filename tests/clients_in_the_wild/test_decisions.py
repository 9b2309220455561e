"""The decision routes on the base that ships and a task that ships, before clients that others wrote,
unmodified: jevcompat's suite, OpenAI's client and TypeSafe's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients_in_the_wild.asking import asked, url_of
from tests.end_to_end.served import Served, free_port
from tests.places import ROOT
from tether import tethered

pytestmark = pytest.mark.usefixtures("compiled_quickly")
FAULT = "choice-second"


def judged(python: Path, url: str, report: Path, *more: str) -> dict[str, Any]:
    """The report of jevcompat's suite."""
    command = [python, "-m", "jevcompat.cli", "test", url, "--json", report, "--timeout", "600", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert report.exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def broken(report: dict[str, Any]) -> dict[str, str]:
    """Requirements that do not hold or could not be tested, and why."""
    return {
        result["id"]: "; ".join(finding["message"] for finding in result["findings"]) or result["reason"]
        for result in report["results"]
        if result["status"] != "pass"
    }


def test_jevcompat_finds_nothing(openai_3: Path, shipped: Served, tmp_path: Path) -> None:
    """Every MUST and every SHOULD, without keys and with one."""
    url = url_of(shipped)
    keyless = broken(judged(openai_3, url, tmp_path / "keyless.json"))
    assert set(keyless) == {"auth.bearer", "auth.missing", "auth.invalid"}, keyless
    scopes = ["infer", "prompts:read", "admin"]
    made = shipped.http.post("/v1/keys", json={"name": "jevcompat", "scopes": scopes})
    assert made.status_code == 201, made.text
    key = made.json()["key"]
    try:
        keyed = broken(judged(openai_3, url, tmp_path / "keyed.json", "--key", key))
    finally:  # without a key that lives, the server is open to the tests that follow
        own = {"authorization": f"Bearer {key}"}
        assert shipped.http.delete(f"/v1/keys/{made.json()['id']}", headers=own).status_code == 200
    assert set(keyed) == {"auth.ignored-when-off"}, keyed


def test_control_jevcompat_finds_a_fault(openai_3: Path, tmp_path: Path) -> None:
    """Its own server with one fault: the suite that passes ours would not pass any."""
    port = free_port()
    command = [openai_3, "-m", "jevcompat.cli", "mock", "--port", str(port), "--fault", FAULT]
    mock = subprocess.Popen(tethered(command), stderr=subprocess.PIPE, text=True)
    try:
        assert mock.stderr is not None and "mock on" in mock.stderr.readline()
        report = judged(openai_3, f"http://127.0.0.1:{port}", tmp_path / "mock.json")
    finally:
        mock.terminate()
        mock.wait()
        assert mock.stderr is not None
        mock.stderr.close()
    assert "choice.argmax" in broken(report)


def test_openais_client(openai_3: Path, shipped: Served) -> None:
    said = asked(openai_3, "openai_decisions.py", url_of(shipped))
    assert said["model"] == "default/sentiment@3"
    kind, name, probability = said["predicate"]
    assert (kind, name) == ("predicate", "praise") and 0 <= probability <= 1
    assert said["choice"][:3] == ["choice", None, "positive"]
    assert said["values"] == ["negative", "positive", True]
    assert said["score"][3] == ["cold", "hot"]
    assert said["usage"] > 0 and said["request_id"].startswith("req_")
    assert "'bad'" in said["refused"]["message"] and said["refused"]["param"] == "questions.0.choices"
    assert said["refused"]["type"] == "invalid_request_error" and said["refused"]["id"]
    assert said["missing"] == "unknown_task"
    assert {"jev-latest", "base", "sentiment"} <= set(said["models"])


def test_typesafes_client(openai_3: Path, shipped: Served) -> None:
    said = asked(openai_3, "typesafe_system_one.py", url_of(shipped))
    assert said["model"] == "default/sentiment@3"
    assert 0 <= said["noul"] <= 1
    assert said["choice"][0] == "positive"
    assert said["score"][1] == [0, 1]
    assert said["usage"] > 0
    assert "\uc9c8\ubb38" in said["refused"]["message"] and said["refused"]["id"].startswith("req_")
    assert "sentiment" in said["models"]


def test_ci_does_not_skip_them() -> None:
    assert "CHORUS_CLIENTS_REQUIRED=1" in (ROOT / ".ci" / "run").read_text()
