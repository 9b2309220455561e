"""Ray Serve as an operator runs it: `deploy/ray/serve.yaml`, with the settings and numbers of a test."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.end_to_end.served import free_port
from tests.places import ROOT, python_module
from tests.server.cluster.ray_driver import ANSWER
from tether import tethered

SECONDS = 600.0
"""Against hanging only."""

LOOK_SECONDS = 0.3
"""Ray's controller takes long to tell its state."""

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # What replicas tell the autoscaler comes every ten seconds otherwise.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
}


class RayCluster:
    """A Ray of its own, and one application of it.

    Args:
        path: the fixture `ray_path`.
        settings: of every replica, by name.
    """

    def __init__(self, path: str, folder: Path, **settings: Any) -> None:
        self.port = free_port()
        self._config: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "ray" / "serve.yaml").read_text())
        self._settings = {"http_port": self.port, **settings}
        self._pause = threading.Event()
        self._own: list[httpx2.Client] = []
        self.lines: list[str] = []
        options = self._config["http_options"] | {"port": self.port}
        command = [*python_module("tests.server.cluster.ray_driver"), str(folder), json.dumps(options)]
        env = {name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")}
        self._process = subprocess.Popen(
            tethered(command),
            env={**env, **ENVIRONMENT, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert self._answer() == "started"
        except BaseException:
            with self._process:
                self._process.kill()
            raise
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=SECONDS)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                return json.loads(line.removeprefix(ANSWER))
            self.lines.append(line.rstrip())
        raise AssertionError("\n".join(self.lines))

    def _ask(self, verb: str, given: Any = None) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([verb, given]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def deploy(
        self,
        least: int,
        most: int,
        *,
        application: str = "",
        **settings: Any,
    ) -> None:
        """Ask for a number of replicas, with these settings besides. Nothing has come of it when this
        returns."""
        config = copy.deepcopy(self._config)
        (app,) = config["applications"]
        (deployment,) = app["deployments"]
        app["import_path"] = application or app["import_path"]
        given = self._settings | settings
        app["runtime_env"]["env_vars"] = {f"CHORUS_{name.upper()}": str(given[name]) for name in given}
        deployment["ray_actor_options"] = {"num_cpus": 1}
        scaling = deployment["autoscaling_config"]
        scaling |= {"min_replicas": least, "max_replicas": most}
        scaling |= {"upscale_delay_s": 0, "downscale_delay_s": 0}
        scaling |= {"look_back_period_s": 1, "metrics_interval_s": 0.5}
        scaling["policy"]["policy_kwargs"] = {"units": 1}
        self._ask("deploy", config)

    def wait_for(
        self,
        replicas: int,
        *,
        without: frozenset[int] = frozenset(),
        look: Callable[[set[str]], None] = lambda _: None,
    ) -> set[int]:
        """Until so many replicas run, and no others; their process ids.

        Args:
            without: process ids that must be gone.
            look: is told the states of the replicas, again and again.
        """
        for _ in range(int(SECONDS / LOOK_SECONDS)):
            told = self._ask("details")
            assert told["status"] != "DEPLOY_FAILED", told
            look({each["state"] for each in told["replicas"]})
            running = {each["pid"] for each in told["replicas"] if each["state"] == "RUNNING"}
            settled = told["status"] == "RUNNING" and len(running) == len(told["replicas"]) == replicas
            if settled and not running & without:
                return running
            self._pause.wait(LOOK_SECONDS)
        raise AssertionError(told)

    def delete(self) -> None:
        """Ask for no application any more, and wait until none is left."""
        self._ask("deploy", self._config | {"applications": []})
        while self._ask("details")["status"] != "NONE":
            self._pause.wait(LOOK_SECONDS)

    def own(self, path: str) -> list[httpx2.Client]:
        """Clients of the replicas' own addresses, with the headers of `http`.

        Args:
            path: what only these replicas have. Servers of other tests may listen beside them.
        """
        for client in self._own:
            client.close()
        self._own = [
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=self.http.headers, timeout=SECONDS)
            for port in range(self.port + 1, self.port + 9)
        ]
        return [client for client in self._own if _has(client, path)]

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, with all its processes."""
        assert self._process.stdin is not None
        for client in (self.http, *self._own):
            client.close()
        self._process.stdin.close()
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()


def _has(client: httpx2.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx2.TransportError:
        return False


def metric(client: httpx2.Client, name: str, **labels: str) -> float:
    """The sum of a metric's series with these labels at one replica."""
    told = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in client.get("/metrics").text.splitlines()
        if line.startswith((name + " ", name + "{")) and all(each in line for each in told)
    )
