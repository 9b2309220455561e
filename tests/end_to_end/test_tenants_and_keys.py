"""From an empty folder to a key that works, and then no longer: all by the command, in processes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.served import CHORUS, TINY, Served
from tests.server.api.api_harness import eventually

pytestmark = pytest.mark.usefixtures("compiled_quickly")
WIDTH = 26
KEY = re.compile(r"ck_[0-9A-Za-z]{8}_[0-9A-Za-z]{32}_[0-9A-Za-z]{6}\n")


def chorus(*words: object, code: int = 0, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with these CHORUS_ variables and no others."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")}
    env |= {f"CHORUS_{name.upper()}": str(value) for name, value in variables.items()}
    done = subprocess.run([CHORUS, *map(str, words)], env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == code, done.stderr
    return done


def test_a_tenants_key_from_bootstrap_to_its_end(
    tmp_path: Path, tiny_model: Path, compile_cache: Path
) -> None:
    """The key is revoked through another server on the same folder than the one that lets it in."""
    folder, prompt = tmp_path / "data", tmp_path / "prompt.npy"
    np.save(prompt, np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32))
    made = chorus("tenants", "bootstrap", data_dir=folder)
    assert KEY.fullmatch(made.stdout) and "note: key-" in made.stderr
    operator = made.stdout.strip()
    again = chorus("tenants", "bootstrap", data_dir=folder, code=1)
    assert again.stdout == "" and "There is a live key with the scope operator already" in again.stderr

    settings = {"model": tiny_model, "compile_cache_dir": compile_cache, **TINY}
    with Served(folder, **settings) as one, Served(folder, **settings) as other:
        one.wait_ready()
        other.wait_ready()
        here, there = one.http.base_url, other.http.base_url

        stranger = chorus("whoami", url=here, code=1)
        assert stranger.stderr.startswith("chorus: unauthenticated")
        assert chorus("tenants", "create", "acme", url=here, api_key=operator).stdout == "acme created\n"
        created = chorus(
            "keys", "create", "website", "--tenant", "acme", "--scope", "infer", "--scope", "prompts:read",
            "--scope", "prompts:write", "--expires", "90d", url=here, api_key=operator,
        )  # fmt: skip
        assert KEY.fullmatch(created.stdout)
        key = created.stdout.strip()
        who = chorus("whoami", url=here, api_key=key).stdout
        assert re.search(r"^tenant +acme$", who, re.M) and "infer, prompts:read, prompts:write" in who

        pushed = chorus("tasks", "push", "mood", prompt, url=here, api_key=key)
        assert pushed.stdout == "acme/mood@1 created, now live\n"
        asked = ("generate", "mood", "good film", "--max-new-tokens", "4")
        answer = chorus(*asked, url=here, api_key=key).stdout
        assert chorus(*asked, url=there, api_key=key).stdout == answer
        assert "unknown_task" in chorus(*asked, url=here, api_key=operator, code=1).stderr
        assert "forbidden" in chorus("tenants", "list", url=here, api_key=key, code=1).stderr

        found = re.search(r"key-[0-9a-f]{24}", created.stderr)
        assert found is not None
        revoke = ("keys", "revoke", found[0], "--tenant", "acme", "--yes")
        assert chorus(*revoke, url=there, api_key=operator).stdout == f"{found[0]} revoked\n"
        caller = {"authorization": f"Bearer {key}"}
        eventually(lambda: one.http.get("/v1/me", headers=caller).status_code == 401)
        refused = chorus(*asked, url=here, api_key=key, code=1)
        assert refused.stdout == "" and refused.stderr.startswith("chorus: unauthenticated")
        assert chorus("tenants", "list", url=here, api_key=operator).returncode == 0
        told = "\n".join([*one.lines, *other.lines])
        assert all(secret.split("_")[2] not in told for secret in (operator, key)), "no key is in a log"
