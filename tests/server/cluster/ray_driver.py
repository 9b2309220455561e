"""A Ray of its own on this machine, and Ray Serve on it, told what to do by lines of JSON on standard input.
Each is answered by a line on standard output that begins with `ANSWER`.

It runs where Ray is importable (the fixture `ray_path`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ANSWER = "@@ "


def deploy(client: Any, config: dict[str, Any]) -> dict[str, Any]:
    """What `serve run FILE` does."""
    from ray.serve.schema import ServeDeploySchema

    client.deploy_apps(ServeDeploySchema.model_validate(config), _blocking=False)
    return {}


def details(client: Any, _: Any) -> dict[str, Any]:
    """The state of the application, and of each replica."""
    apps = list(client.get_serve_details()["applications"].values())
    if not apps:
        return {"status": "NONE", "message": "", "replicas": []}
    (app,) = apps
    found = [each for deployment in app["deployments"].values() for each in deployment["replicas"]]
    replicas = [{"pid": each.get("pid"), "state": each["state"], "id": each["replica_id"]} for each in found]
    return {"status": app["status"], "message": app["message"], "replicas": replicas}


def main() -> None:
    import ray
    from ray.serve._private.api import serve_start

    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    ray.init(
        _node_ip_address="127.0.0.1",
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=True,
        namespace="serve",
        _temp_dir=str(folder),
    )
    client = serve_start(http_options=options, proxy_location="HeadOnly")
    sys.stdout.write(f"\n{ANSWER}{json.dumps('started')}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        verb, given = json.loads(line)
        answer = {"deploy": deploy, "details": details}[verb](client, given)
        sys.stdout.write(f"\n{ANSWER}{json.dumps(answer)}\n")
        sys.stdout.flush()
    ray.shutdown()


if __name__ == "__main__":
    main()
