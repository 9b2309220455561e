"""The container files, without a container engine: every path, service and setting they name exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


def test_every_published_port_is_on_loopback(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_mounts_and_dependencies_exist(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert set(service.get("depends_on", ())) <= set(compose["services"]), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./deploy"):
                assert (ROOT / source).exists(), source
            elif not source.startswith("."):
                assert source in compose["volumes"], source


def test_environment_variables_are_settings(compose: dict[str, Any]) -> None:
    given = set(compose["services"]["chorus"]["environment"])
    given |= set(re.findall(r"\b(CHORUS_[A-Z_]+)=", (ROOT / "Dockerfile").read_text()))
    known = {f"CHORUS_{name.upper()}" for name in Settings.model_fields}
    assert given and given <= known


def test_the_image_runs_as_a_plain_user_with_a_health_check() -> None:
    text = (ROOT / "Dockerfile").read_text()
    final = text.rsplit("FROM ", 1)[1]
    assert re.search(r"^USER chorus$", final, re.M)
    assert "HEALTHCHECK" in final and "/healthz" in final


def test_what_is_written_goes_to_the_volume(compose: dict[str, Any]) -> None:
    """The composed container is read-only: a download anywhere else could not be written."""
    text = (ROOT / "Dockerfile").read_text()
    volume = re.search(r"^VOLUME (\S+)$", text, re.M)
    assert volume and compose["services"]["chorus"]["read_only"]
    for name in ("CHORUS_DATA_DIR", "XDG_CACHE_HOME"):
        assert re.search(rf"\b{name}={volume[1]}\b", text), name
    assert any(mount.endswith(f":{volume[1]}") for mount in compose["services"]["chorus"]["volumes"])


def test_everything_the_image_copies_exists() -> None:
    lines = re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.M)
    for line in lines:
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source


def test_prometheus_reads_the_token_that_compose_makes(compose: dict[str, Any]) -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    job = config["scrape_configs"][0]
    made = compose["services"]["keys"]["command"][0]
    assert Path(job["authorization"]["credentials_file"]).name in made
    assert job["static_configs"][0]["targets"] == ["chorus:8000"]
