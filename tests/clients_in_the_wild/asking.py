"""Scripts in the clients' environments, and keys for them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.end_to_end.served import Served

HERE = Path(__file__).parent


def url_of(server: Served) -> str:
    return str(server.http.base_url).rstrip("/")


def ran(command: list[Any], **environment: str) -> str:
    """What it wrote to standard output. It has no variables of this process: they would be settings."""
    env = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(python: Path, script: str, *arguments: str, **environment: str) -> Any:
    """The JSON that a script beside this file writes."""
    return json.loads(ran([python, HERE / script, *arguments], **environment))
