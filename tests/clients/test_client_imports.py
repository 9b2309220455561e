"""The client is light: importing it pulls in nothing of the server."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "torch",
    "chorus_server",
    "prompts_store",
    "fastapi",
    "sqlalchemy",
    "safetensors",
)


def loaded_by(statement: str) -> set[str]:
    """Names of the heavy modules that a fresh interpreter has after a statement."""
    code = f"{statement}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=1200
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import chorus", "import chorus.cli", "import chorus.load"])
def test_importing_the_client_is_light(statement: str) -> None:
    assert loaded_by(statement) == set()


def test_heavy_modules_would_be_noticed() -> None:
    """The control of the test above."""
    assert loaded_by("import numpy, chorus_server.errors") == {"numpy", "chorus_server"}


@pytest.mark.parametrize(("words", "offered"), [([], "serve"), (["tenants"], "bootstrap")])
def test_help_imports_no_extension(words: list[str], offered: str) -> None:
    statement = (
        "import chorus.cli.root as root\n"
        "from click.testing import CliRunner\n"
        f"answer = CliRunner().invoke(root.chorus, {[*words, '--help']!r})\n"
        f"assert answer.exit_code == 0 and {offered!r} in answer.output, answer.output"
    )
    assert loaded_by(statement) == set()
