"""The manifests, without a cluster: against Kubernetes' schemas, and the server that they describe."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from chorus_server.api.metrics import Metrics
from chorus_server.app import MAX_COMPILE_SECONDS, build_app, close_app
from chorus_server.compile_cli import COMPILE_SETTINGS
from chorus_server.settings import Settings
from prompts_store.blobs.address import BlobAddress
from tests.pip_environment import SCHEMAS, pip_environment
from tests.places import ROOT

FOLDER, HERE = ROOT / "deploy" / "kubernetes", Path(__file__).parent
VARIANTS = ("cpu", "nvidia", "tpu", "bucket")
BESIDE = ("migrate", "compile", "autoscale", "monitor", "endpoint-picker")
ACCELERATORS = {"cpu": None, "nvidia": "nvidia.com/gpu", "tpu": "google.com/tpu", "bucket": None}

Document = dict[str, Any]


def read(path: Path) -> Document:
    document: Document = yaml.safe_load(path.read_text())
    return document


def merged(base: Any, patch: Any) -> Any:
    """A strategic merge, as far as the patches here need one: objects by key, where null removes one, lists
    of what has names by those, other lists replaced."""
    if isinstance(base, dict) and isinstance(patch, dict):
        both = base | {key: merged(base.get(key), value) for key, value in patch.items()}
        return {key: value for key, value in both.items() if value is not None}
    if isinstance(base, list) and isinstance(patch, list) and all("name" in each for each in base + patch):
        changed = {each["name"]: each for each in patch}
        there = [merged(each, changed.pop(each["name"], {})) for each in base]
        return list(changed.values()) + there
    return patch


def rendered(variant: str) -> list[Document]:
    """What `kubectl apply -k` would send, but for the order."""
    base = read(FOLDER / "cpu" / "kustomization.yaml")
    documents = [read(FOLDER / "cpu" / name) for name in base["resources"]]
    (image,) = base["images"]
    tag = image["newTag"]
    if variant != "cpu":
        over = read(FOLDER / variant / "kustomization.yaml")
        assert over["resources"] == ["../cpu"]
        tag = over["images"][0]["newTag"]
        for patch in (read(FOLDER / variant / each["path"]) for each in over["patches"]):
            kinds = [each["kind"] for each in documents]
            at = kinds.index(patch["kind"])
            if patch.get("$patch") == "delete":
                del documents[at]
            else:
                documents[at] = merged(documents[at], patch)
    for document in documents:
        if document["kind"] != "Namespace":
            document["metadata"]["namespace"] = base["namespace"]
        if document["kind"] == "Deployment":
            (container,) = document["spec"]["template"]["spec"]["containers"]
            assert container["image"] == image["name"]
            container["image"] = f"{image['newName']}:{tag}"
    return documents


def beside(name: str) -> Document:
    return read(FOLDER / f"{name}.yaml")


def deployment(variant: str = "cpu") -> Document:
    (found,) = [each for each in rendered(variant) if each["kind"] == "Deployment"]
    return found


def container_of(workload: Document) -> Document:
    (found,) = workload["spec"]["template"]["spec"]["containers"]
    container: Document = found
    return container


def environment(workload: Document) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container_of(workload)["env"]}


def troubles(documents: list[Document]) -> list[str]:
    """What the schemas find wrong with each."""
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    command = [pip_environment(SCHEMAS) / "python", HERE / "schema_child.py"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_document_fits_its_schema_and_broken_ones_do_not() -> None:
    documents = [document for variant in VARIANTS for document in rendered(variant)]
    documents += [beside(name) for name in BESIDE]
    broken = []
    for change in (
        ("Deployment", lambda d: container_of(d)["readinessProbe"].update(path="/readyz")),
        ("Deployment", lambda d: d["spec"].update(replicas="two")),
        ("NetworkPolicy", lambda d: d["spec"].update(podselector={})),
        ("ScaledObject", lambda d: d["spec"]["triggers"][0]["metadata"].update(threshold=2)),
        ("ServiceMonitor", lambda d: d["spec"]["endpoints"][0].update(interval="often")),
        ("EndpointPickerConfig", lambda d: d["plugins"][0].update(kind="x")),
    ):
        kind, apply = change
        document = copy.deepcopy(next(each for each in documents if each["kind"] == kind))
        apply(document)
        broken.append(document)
    found = troubles([*documents, *broken])
    assert len(found) == len(documents) + len(broken)
    assert not [trouble for trouble in found[: len(documents)] if trouble]
    assert all(found[len(documents) :]), "control"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
@pytest.mark.parametrize("variant", VARIANTS)
def test_kubectl_renders_the_same(variant: str) -> None:
    command = ["kubectl", "kustomize", FOLDER / variant]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if "unknown" in done.stderr:
        pytest.skip(f"this kubectl is too old: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr

    def order(documents: list[Document]) -> list[Document]:
        return sorted(documents, key=lambda each: str(each["kind"]))

    assert order(list(yaml.safe_load_all(done.stdout))) == order(rendered(variant))


def test_probes_and_scrapes_ask_for_what_exists(tmp_path: Path) -> None:
    app = build_app(Settings(model="embedded", data_dir=tmp_path))
    try:
        routes = {route.path for route in app.api.routes if hasattr(route, "path")}
    finally:
        close_app(app)
    assert "/v1/generate" in routes, "control"
    for variant in VARIANTS:
        container = container_of(deployment(variant))
        (port,) = container["ports"]
        probes = {name: container[name]["httpGet"] for name in container if name.endswith("Probe")}
        assert {name: probe["path"] for name, probe in probes.items()} == {
            "startupProbe": "/healthz",
            "livenessProbe": "/healthz",
            "readinessProbe": "/readyz",
        }
        assert {probe["path"] for probe in probes.values()} <= routes
        assert {probe["port"] for probe in probes.values()} == {port["name"]}
        assert f"CHORUS_HTTP_PORT={port['containerPort']}" in (ROOT / "Dockerfile").read_text()
    (service,) = [each for each in rendered("cpu") if each["kind"] == "Service"]
    (endpoint,) = beside("monitor")["spec"]["endpoints"]
    assert endpoint["path"] in routes and endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]


def test_the_environment_names_settings_and_their_values_are_accepted() -> None:
    known = {f"CHORUS_{name.upper()}": name for name in Settings.model_fields}
    workloads = [*(deployment(variant) for variant in VARIANTS), beside("migrate"), beside("compile")]
    for workload in workloads:
        given = {name: value for name, value in environment(workload).items() if not name.startswith("AWS_")}
        assert given and set(given) <= set(known)
        Settings(**{known[name]: value for name, value in given.items() if value})
    assert "CHORUS_DATABASE_URL" in environment(beside("migrate"))


def test_there_is_time_to_drain_and_to_compile() -> None:
    for variant in VARIANTS:
        workload = deployment(variant)
        given, pod = environment(workload), workload["spec"]["template"]["spec"]
        drain, notice = float(given["CHORUS_DRAIN_SECONDS"]), float(given["CHORUS_DRAIN_NOTICE_MS"]) / 1000
        assert pod["terminationGracePeriodSeconds"] >= drain + 10 and 0 < notice < drain
        # Two readiness probes fail before requests stop.
        assert notice > 2 * container_of(workload)["readinessProbe"]["periodSeconds"]
        assert workload["spec"]["progressDeadlineSeconds"] >= MAX_COMPILE_SECONDS


@pytest.mark.parametrize("variant", VARIANTS)
def test_replicas_may_do_nothing_that_they_need_not(variant: str) -> None:
    for workload in (deployment(variant), beside("migrate"), beside("compile")):
        pod, container = workload["spec"]["template"]["spec"], container_of(workload)
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        user = re.search(r"useradd --uid (\d+)", (ROOT / "Dockerfile").read_text())
        assert user and pod["securityContext"]["runAsUser"] == int(user[1])
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_asks_for_its_accelerator(variant: str) -> None:
    container = container_of(deployment(variant))
    extra = set(container["resources"]["limits"]) - {"memory", "cpu"}
    assert extra == {ACCELERATORS[variant]} - {None}
    accelerator = {"nvidia": "cuda", "bucket": "cpu"}.get(variant, variant)
    assert container["image"].endswith(f"-{accelerator}") and accelerator in ("cpu", "cuda", "tpu")


def test_keys_that_are_read_are_mounted_and_named_alike() -> None:
    workload = deployment()
    given, pod = environment(workload), workload["spec"]["template"]["spec"]
    (keys,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    paths = {f"/keys/{item['path']}" for item in keys["items"]}
    assert paths == {given["CHORUS_OPERATOR_KEY_FILE"], given["CHORUS_SCRAPE_TOKEN_FILE"]}
    credentials = beside("monitor")["spec"]["endpoints"][0]["authorization"]["credentials"]
    assert credentials["name"] == keys["secretName"]
    assert credentials["key"] in {item["key"] for item in keys["items"]}


def test_metrics_that_are_named_exist() -> None:
    known = {series.name for series in Metrics().registry.table}
    (trigger,) = beside("autoscale")["spec"]["triggers"]
    picker = next(each for each in beside("endpoint-picker")["plugins"] if "parameters" in each)
    (engine,) = picker["parameters"]["engineConfigs"]
    named = set(re.findall(r"chorus_\w+", trigger["metadata"]["query"]))
    named |= {value for key, value in engine.items() if key.endswith("Spec")}
    assert len(named) == 5 and named <= known
    labels = deployment()["spec"]["template"]["metadata"]["labels"]
    assert engine["name"] == labels["inference.networking.k8s.io/engine-type"]


def test_selectors_find_the_replicas() -> None:
    workload = deployment()
    labels, name = workload["spec"]["template"]["metadata"]["labels"], workload["metadata"]["name"]
    documents = {document["kind"]: document for document in rendered("cpu")}
    selectors = [
        workload["spec"]["selector"]["matchLabels"],
        documents["Service"]["spec"]["selector"],
        documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    monitored = beside("monitor")["spec"]
    assert monitored["selector"]["matchLabels"].items() <= documents["Service"]["metadata"]["labels"].items()
    # The alerts and dashboards are for the job `chorus`.
    assert documents["Service"]["metadata"]["labels"][monitored["jobLabel"]] == "chorus"
    assert beside("autoscale")["spec"]["scaleTargetRef"]["name"] == name
    (claim,) = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in workload["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claim == documents["PersistentVolumeClaim"]["metadata"]["name"]


def volume_of(workload: Document) -> Document:
    (found,) = [each for each in workload["spec"]["template"]["spec"]["volumes"] if each["name"] == "data"]
    return {key: value for key, value in found.items() if key != "name"}


def test_with_a_bucket_replicas_share_no_volume() -> None:
    kinds = [document["kind"] for document in rendered("bucket")]
    given, control = environment(deployment("bucket")), environment(deployment("cpu"))
    assert "PersistentVolumeClaim" not in kinds and list(volume_of(deployment("bucket"))) == ["emptyDir"]
    assert "PersistentVolumeClaim" in [document["kind"] for document in rendered("cpu")], "control"
    assert BlobAddress.of(given["CHORUS_BLOB_URL"]).region == "eu-central-1"
    assert control.keys() < given.keys() and "CHORUS_BLOB_URL" not in control
    room = volume_of(deployment("bucket"))["emptyDir"]["sizeLimit"]
    assert int(given["CHORUS_BLOB_CACHE_BYTES"]) < int(room.removesuffix("Gi")) << 30


def test_programs_are_compiled_with_what_replicas_have() -> None:
    """Else they would be others' programs: the folder, the image, the cores, and the settings that decide."""
    job, replica = beside("compile"), deployment()
    assert volume_of(job) == volume_of(replica)
    assert container_of(job)["image"] == container_of(replica)["image"]
    assert container_of(job)["resources"] == container_of(replica)["resources"]
    decide = {f"CHORUS_{name.upper()}" for name in COMPILE_SETTINGS} - {"CHORUS_LOG_FORMAT"}
    assert not decide & environment(replica).keys() - environment(job).keys()
    assert job["spec"]["activeDeadlineSeconds"] >= MAX_COMPILE_SECONDS
    image = (FOLDER / "bucket" / "Dockerfile").read_text()
    assert container_of(deployment("bucket"))["image"] in image
    assert f"ARG IMAGE={container_of(replica)['image']}\n" in image and "RUN chorus compile " in image
    assert re.search(r"USER root\n.*RUN .*\nUSER chorus\n", image, re.DOTALL)
    assert "ENV CHORUS_COMPILE_CACHE_DIR=/opt/" in image  # /data is a volume, and empty at a start
