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

FOLDER, CPU = ROOT / "deploy" / "ray", ROOT / "deploy" / "kubernetes" / "cpu"
DASHBOARD = 8265


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


def with_autoscaler(service: Document, head: Document) -> Document:
    """The head's pod with the container that KubeRay adds."""
    options = service["spec"]["rayClusterConfig"]["autoscalerOptions"]
    whole = copy.deepcopy(pod(head))
    whole["spec"]["containers"].append({"name": "autoscaler", "image": "ray", **options})
    return whole


def what_is_not_restricted(pod: Document) -> list[str]:
    """What a namespace that enforces `restricted` refuses: https://kubernetes.io/docs/concepts/security/\
pod-security-standards."""
    spec = pod["spec"]
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    found += [each["name"] for each in spec["volumes"] if "hostPath" in each]
    for container in spec["containers"]:
        of_both = spec.get("securityContext", {}) | container.get("securityContext", {})
        good = (
            of_both.get("allowPrivilegeEscalation") is False
            and of_both.get("capabilities", {}).get("drop") == ["ALL"]
            and of_both.get("runAsNonRoot") is True
            and of_both.get("seccompProfile") == {"type": "RuntimeDefault"}
        )
        found += [] if good else [container["name"]]
    return found


def chosen(selector: Document, labels: Document) -> bool:
    return bool(selector["matchLabels"].items() <= labels.items())


def applications(text: Any) -> Any:
    return yaml.safe_load(text)["applications"]


def test_every_document_fits_its_schema_and_broken_ones_do_not() -> None:
    service, head, workers = parts()
    monitor = read(FOLDER / "monitor.yaml")
    beside = [read(FOLDER / f"{name}.yaml") for name in ("network", "disruption")]
    documents = [service, with_autoscaler(service, head), pod(workers), monitor, *beside]
    broken = [copy.deepcopy(each) for each in documents]
    broken[0]["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    broken[1]["spec"]["containers"][0]["env"][0]["value"] = 1
    broken[2]["spec"]["runAsNonRoot"] = True
    broken[3]["spec"]["podMetricsEndpoints"][0]["interval"] = "often"
    broken[4]["spec"]["podselector"] = {}
    broken[5]["spec"]["maxUnavailable"] = []
    found = troubles(documents + broken)
    assert found[: len(documents)] == [""] * len(documents)
    assert all(found[len(documents) :]), "control"


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


def test_the_namespace_admits_every_pod() -> None:
    service, head, workers = parts()
    labels = read(CPU / "namespace.yaml")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for each in (with_autoscaler(service, head), pod(workers)):
        assert each["spec"]["containers"] and what_is_not_restricted(each) == []
    del service["spec"]["rayClusterConfig"]["autoscalerOptions"]["securityContext"]
    assert what_is_not_restricted(with_autoscaler(service, head)) == ["autoscaler"], "control"


def test_rays_pods_have_policies_of_their_own() -> None:
    """Nothing of the plain Deployment chooses them, and what is for them does."""
    _, head, workers = parts()
    network, disruption = (read(FOLDER / f"{name}.yaml")["spec"] for name in ("network", "disruption"))
    ray, replica = (group["template"]["metadata"]["labels"] for group in (head, workers))
    assert chosen(network["podSelector"], ray) and chosen(network["podSelector"], replica)
    assert chosen(disruption["selector"], replica) and not chosen(disruption["selector"], ray)
    plain = read(CPU / "deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        read(CPU / "network.yaml")["spec"]["podSelector"],
        read(CPU / "disruption.yaml")["spec"]["selector"],
        {"matchLabels": read(CPU / "service.yaml")["spec"]["selector"]},
    ]
    for selector in selectors:
        assert chosen(selector, plain), "control"
        assert not chosen(selector, ray) and not chosen(selector, replica)
    own = {"podSelector": network["podSelector"]}
    assert {"from": [own]} in network["ingress"], "every port of each other's"
    assert {"to": [own]} in network["egress"]
    open_ports = {port["port"] for rule in network["ingress"] for port in rule.get("ports", [])}
    (container,) = workers["template"]["spec"]["containers"]
    assert open_ports == {each["containerPort"] for each in container["ports"]} | {DASHBOARD}
    outside = {
        port["port"] for rule in read(CPU / "network.yaml")["spec"]["egress"] for port in rule["ports"]
    }
    assert outside <= {port["port"] for rule in network["egress"] for port in rule.get("ports", [])}


def test_the_head_has_no_secret_and_no_data() -> None:
    _, head, workers = parts()
    for group, has in ((head, False), (workers, True)):
        said = str(group["template"]["spec"])
        assert [name in said for name in ("secretKeyRef", "secretName", "persistentVolumeClaim")] == [has] * 3
    (app,) = applications((FOLDER / "serve.yaml").read_text())
    drain = float(app["runtime_env"]["env_vars"]["CHORUS_DRAIN_SECONDS"])
    assert drain == Settings().drain_seconds
    assert workers["template"]["spec"]["terminationGracePeriodSeconds"] >= drain + 10


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
    monitor, (_, head, workers) = read(FOLDER / "monitor.yaml"), parts()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (container,) = workers["template"]["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    proxy = yaml.safe_load((FOLDER / "serve.yaml").read_text())["http_options"]["port"]
    assert ports == {"serve": proxy, endpoint["port"]: proxy + 1}
    labels = workers["template"]["metadata"]["labels"]
    assert chosen(monitor["spec"]["selector"], labels)
    assert not chosen(monitor["spec"]["selector"], head["template"]["metadata"]["labels"])
    assert labels[monitor["spec"]["jobLabel"]] == "chorus", "the job of the alerts and dashboards"
