"""The container files, without a container engine: every path, service and setting they name exists."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from chorus_server.settings import Settings
from chorus_server.storage import open_store
from prompts_store.testing import example_prompt
from tests.places import ROOT
from tests.s3_server import S3Server


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
            if volume.startswith("/"):
                continue  # a volume of its own
            if source.startswith("./deploy"):
                assert (ROOT / source).exists(), source
            elif not source.startswith("."):
                assert source in compose["volumes"], source


def unlimited(compose: dict[str, Any]) -> list[str]:
    """What may take all of a machine's memory, processes or descriptors."""
    found = []
    for name, service in compose["services"].items():
        files = service.get("ulimits", {}).get("nofile", {})
        if not re.fullmatch(r"(\$\{MEMORY:-)?\d+[gm]\}?", str(service.get("mem_limit", ""))):
            found.append(f"{name}: memory")
        if not 0 < service.get("pids_limit", 0) <= 4096:
            found.append(f"{name}: processes")
        if not 0 < files.get("soft", 0) <= files.get("hard", 0) <= 65_536:
            found.append(f"{name}: descriptors")
    return found


def test_every_service_is_limited(compose: dict[str, Any]) -> None:
    assert not unlimited(compose)
    for limit in ("mem_limit", "pids_limit", "ulimits"):
        broken = copy.deepcopy(compose)
        del broken["services"]["grafana"][limit]
        assert len(unlimited(broken)) == 1, "control"


READERS = {
    "keys": {"chorus", "replica"},
    "scrape_token": {"chorus", "prometheus"},
    "grafana_password": {"grafana"},
    "database_keys": {"postgresql", "replica"},
    "bucket_keys": {"s3", "make-bucket", "replica"},
}
"""Who reads each key's volume."""

MAKERS = {"keys", "shared-keys"}


def readers(compose: dict[str, Any]) -> dict[str, set[str]]:
    """Who mounts each key's volume, but for the services that make them."""
    return {
        volume: {
            name
            for name, service in compose["services"].items()
            if name not in MAKERS
            and any(mount.split(":")[0] == volume for mount in service.get("volumes", ()))
        }
        for volume in READERS
    }


def test_each_key_is_mounted_only_where_it_is_read(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert readers(compose) == READERS
    broken = copy.deepcopy(compose)
    broken["services"]["grafana"]["volumes"].append("keys:/other:ro")
    assert readers(broken) != READERS, "control"
    for name in set().union(*READERS.values()):
        mounts = [mount for mount in services[name]["volumes"] if mount.split(":")[0] in READERS]
        assert mounts and all(mount.endswith(":ro") for mount in mounts)
    environment, scraping = services["chorus"]["environment"], _prometheus()["authorization"]
    password = services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    paths = [
        ("chorus", environment["CHORUS_OPERATOR_KEY_FILE"], "keys", "operator_key"),
        ("chorus", environment["CHORUS_SCRAPE_TOKEN_FILE"], "scrape_token", "scrape_token"),
        ("prometheus", scraping["credentials_file"], "scrape_token", "scrape_token"),
        ("grafana", password, "grafana_password", "grafana_password"),
    ]
    for name, path, volume, key in paths:
        folder = str(Path(path).parent)
        assert Path(path).name == key and f"{volume}:{folder}:ro" in services[name]["volumes"], path


def test_keys_are_made_once_and_kept(compose: dict[str, Any], tmp_path: Path) -> None:
    """The command itself, in a folder in place of the root; also from what an earlier composition left."""
    command = compose["services"]["keys"]["command"][0]
    command = command.replace('"/"', repr(str(tmp_path))).replace('"/keys"', repr(str(tmp_path / "keys")))
    command = command.replace("10001, 10001", f"{os.getuid()}, {os.getgid()}")
    for volume in ("keys", "scrape_token", "grafana_password"):
        (tmp_path / volume).mkdir()
    old = {"api_key": "a" * 40, "grafana_password": "g" * 40}
    for name, text in old.items():
        (tmp_path / "keys" / name).write_text(text)
    found: list[dict[str, str]] = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", command], check=True)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        found.append({str(path.relative_to(tmp_path)): path.read_text() for path in files})
    assert found[0] == found[1]
    assert found[0] == {
        "keys/operator_key": old["api_key"],
        "grafana_password/grafana_password": old["grafana_password"],
        "scrape_token/scrape_token": found[0]["scrape_token/scrape_token"],
    }
    assert len(found[0]["scrape_token/scrape_token"]) > 40
    assert (tmp_path / "keys" / "operator_key").stat().st_mode & 0o777 == 0o400


def script(compose: dict[str, Any], service: str, **places: object) -> str:
    """What a service runs, with other places in it than in a container."""
    command: str = compose["services"][service]["command"][0]
    for old, new in places.items():
        assert f"/{old}" in command
        command = command.replace(f"/{old}", str(new))
    return command.replace("10001, 10001", f"{os.getuid()}, {os.getgid()}")


def test_the_replicas_keys_fit_each_other_and_a_real_s3(
    compose: dict[str, Any], tmp_path: Path, s3_server: S3Server
) -> None:
    """Made once and kept; with them the bucket is made, and the settings of a replica open a store in it."""
    places = {name: tmp_path / name for name in ("database_keys", "bucket_keys")}
    for place in places.values():
        place.mkdir()
    made = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script(compose, "shared-keys", **places)], check=True)
        made.append({path.name: path.read_text() for path in tmp_path.rglob("*") if path.is_file()})
    assert made[0] == made[1]
    assert made[0]["pgpass"] == f"postgresql:5432:*:chorus:{made[0]['password']}"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()} == {0o400}
    server = S3Server(s3_server.programs, config=tmp_path / "bucket_keys" / "s3.json")
    endpoint = f"http://127.0.0.1:{server.port}"
    try:
        making = script(compose, "make-bucket", bucket_keys=places["bucket_keys"])
        assert "http://s3:8333" in making
        making = making.replace("http://s3:8333", endpoint)
        subprocess.run([sys.executable, "-c", making], check=True)
        given = compose["services"]["replica"]["environment"]
        names = {name for name in Settings.model_fields if name.startswith("blob_")}
        settings = {name: given.get(f"CHORUS_{name.upper()}") for name in names}
        settings["blob_url"] = settings["blob_url"].replace("http://s3:8333", endpoint)
        settings["blob_credentials_file"] = places["bucket_keys"] / "credentials"
        told = {name: value for name, value in settings.items() if value is not None}
        with closing(open_store(Settings(data_dir=tmp_path / "data", **told))) as store:
            store.publish("acme", "sst2", *example_prompt(1))
            assert store.check().clean
    finally:
        server.stop()


def test_the_api_needs_no_key_file_of_0_1_0(compose: dict[str, Any]) -> None:
    assert "CHORUS_API_KEY_FILE" not in compose["services"]["chorus"]["environment"]


def test_environment_variables_are_settings(compose: dict[str, Any]) -> None:
    given = set(compose["services"]["chorus"]["environment"])
    given |= set(compose["services"]["replica"]["environment"]) - {"PGPASSFILE"}  # psycopg reads that itself
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


def _prometheus() -> dict[str, Any]:
    """How Prometheus scrapes Chorus."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    job: dict[str, Any] = found["scrape_configs"][0]
    return job


def test_prometheus_reads_the_token_that_compose_makes(compose: dict[str, Any]) -> None:
    job = _prometheus()
    made = compose["services"]["keys"]["command"][0]
    assert Path(job["authorization"]["credentials_file"]).name in made
    assert job["static_configs"][0]["targets"] == ["chorus:8000"]
