"""The dashboard and the alert rules: built as their table says, over metrics that exist."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from types import ModuleType

import pytest
import yaml

from chorus_server.api.metrics import Metrics
from tests.places import ROOT

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
METRIC = re.compile(r"\bchorus_[a-z_]+")


def _builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_dashboard", DEPLOY / "grafana" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _known_names() -> set[str]:
    names = set()
    for series in Metrics().registry.table:
        suffixes = ("_bucket", "_sum", "_count") if series.kind == "histogram" else ("",)
        names.update(series.name + suffix for suffix in suffixes)
    return names


def _expressions() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "chorus.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    rules = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    return queries + rules


def test_the_dashboard_is_what_its_table_builds() -> None:
    built = json.dumps(_builder().dashboard(), indent=1) + "\n"
    message = "run: python deploy/grafana/build.py"
    assert (DEPLOY / "grafana" / "dashboards" / "chorus.json").read_text() == built, message


def test_every_query_and_rule_names_metrics_that_exist() -> None:
    used = {name for expression in _expressions() for name in METRIC.findall(expression)}
    assert len(used) > 20
    assert used <= _known_names()


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in _builder().dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("command", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]])
def test_alert_rules_fire_on_what_they_are_for(command: list[str]) -> None:
    ran = subprocess.run(
        ["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, timeout=1200
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
