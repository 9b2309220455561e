"""The files for Ray Serve and KubeRay, without a cluster: against schemas, each other, and the server."""

from __future__ import annotations

import copy
import tomllib
from importlib import import_module
from typing import Any

import yaml

from chorus_server.cluster.scaling import QueuedWork
from chorus_server.settings import Settings
from tests.deploy.test_kubernetes import Document, read, troubles
from tests.places import ROOT

FOLDER = ROOT / "deploy" / "ray"


def parts() -> tuple[Document, Document, Document]:
    """The service, its head and its workers."""
    service = read(FOLDER / "rayservice.yaml")
    cluster = service["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    return service, cluster["headGroupSpec"], workers


def pod(group: Document) -> Document:
    """What a group starts, as a document of its own."""
    template = group["template"]
    metadata = template["metadata"] | {"name": "pod"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def applications(text: Any) -> Any:
    return yaml.safe_load(text)["applications"]


def test_every_document_fits_its_schema_and_broken_ones_do_not() -> None:
    service, head, workers = parts()
    monitor = read(FOLDER / "monitor.yaml")
    documents = [service, pod(head), pod(workers), monitor]
    broken = [copy.deepcopy(each) for each in documents]
    broken[0]["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    broken[1]["spec"]["containers"][0]["env"][0]["value"] = 1
    broken[2]["spec"]["runAsNonRoot"] = True
    broken[3]["spec"]["podMetricsEndpoints"][0]["interval"] = "often"
    found = troubles(documents + broken)
    assert found[:4] == [""] * 4
    assert all(found[4:]), "control"


def test_the_service_runs_what_serve_run_does() -> None:
    service, _, workers = parts()
    assert applications(service["spec"]["serveConfigV2"]) == applications((FOLDER / "serve.yaml").read_text())
    (app,) = applications(service["spec"]["serveConfigV2"])
    module, _, name = app["import_path"].partition(":")
    assert callable(getattr(import_module(module), name))
    (deployment,) = app["deployments"]
    scaling = deployment["autoscaling_config"]
    module, _, name = scaling["policy"]["policy_function"].partition(":")
    assert getattr(import_module(module), name) is QueuedWork
    QueuedWork(**scaling["policy"]["policy_kwargs"])
    assert (workers["minReplicas"], workers["maxReplicas"]) == (
        scaling["min_replicas"],
        scaling["max_replicas"],
    )
    (container,) = workers["template"]["spec"]["containers"]
    assert int(container["resources"]["limits"]["cpu"]) == deployment["ray_actor_options"]["num_cpus"]


def test_the_environment_names_settings() -> None:
    _, head, workers = parts()
    known = {f"CHORUS_{name.upper()}" for name in Settings.model_fields}
    (app,) = applications((FOLDER / "serve.yaml").read_text())
    assert set(app["runtime_env"]["env_vars"]) <= known
    for group in (head, workers):
        (container,) = group["template"]["spec"]["containers"]
        assert {each["name"] for each in container["env"]} <= known | {"HOME"}


def test_the_image_has_the_ray_that_is_named_everywhere() -> None:
    service, _, _ = parts()
    version = service["spec"]["rayClusterConfig"]["rayVersion"]
    assert f"ray=={version}\n" in (ROOT / "tests" / "ray.txt").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = [each for each in extras["ray"] if each.startswith("ray[")]
    assert f"ray[serve]{wanted.partition(']')[2]}" in (FOLDER / "Dockerfile").read_text()
    assert version.startswith(wanted.partition(">=")[2].partition(",")[0])


def test_only_loopback_is_served_without_a_key() -> None:
    service, _, workers = parts()
    assert yaml.safe_load((FOLDER / "serve.yaml").read_text())["http_options"]["host"] == "127.0.0.1"
    assert yaml.safe_load(service["spec"]["serveConfigV2"])["http_options"]["host"] == "0.0.0.0"
    (container,) = workers["template"]["spec"]["containers"]
    assert "CHORUS_OPERATOR_KEY_FILE" in {each["name"] for each in container["env"]}
    for group in parts()[1:]:
        spec = group["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_replicas_own_port_is_scraped() -> None:
    monitor, (_, _, workers) = read(FOLDER / "monitor.yaml"), parts()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (container,) = workers["template"]["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    proxy = yaml.safe_load((FOLDER / "serve.yaml").read_text())["http_options"]["port"]
    assert ports == {"serve": proxy, endpoint["port"]: proxy + 1}
    labels = workers["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
