"""What people install: the wheel, in an environment of its own, beside modules of theirs called `server`."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.places import ROOT

THEIRS = "raise SystemExit('their server.py was imported')\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the project's own build backend, from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    code = f"from hatchling.build import build_wheel\nprint(build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that holds the wheel, and sees the packages that it needs."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    install = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    # A path file found through a path file is not read, so this checkout, installed beside them, stays out.
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


@pytest.fixture
def surrounded(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A working directory and a `PYTHONPATH`, each with a `server.py` that ends whoever imports it."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "server.py").write_text(THEIRS)
    return here, {**os.environ, "PYTHONPATH": str(there), "JAX_PLATFORMS": "cpu"}


def test_the_wheel_has_what_the_consoles_pages_need(wheel: Path) -> None:
    folder = ROOT / "clients" / "console" / "chorus_console"
    with zipfile.ZipFile(wheel) as archive:
        there = set(archive.namelist())
    for part in ("templates", "static", "vendor"):
        files = [path.name for path in (folder / part).iterdir()]
        assert files and {f"chorus_console/{part}/{name}" for name in files} <= there


def test_the_wheel_takes_no_common_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "chorus",
        "chorus_console",
        "chorus_server",
        "prompts_store",
    }


@pytest.mark.parametrize("verb", ["serve", "worker", "models", "store", "pretrain"])
def test_the_verbs_start_beside_a_module_called_server(
    installed: Path, surrounded: tuple[Path, dict[str, str]], verb: str
) -> None:
    here, environ = surrounded
    command = [installed / "chorus", verb, "--help"]
    told = subprocess.run(command, cwd=here, env=environ, capture_output=True, text=True)
    assert told.returncode == 0 and f"chorus {verb}" in told.stdout, told.stderr


def test_the_server_and_its_base_are_those_of_the_wheel(
    installed: Path, surrounded: tuple[Path, dict[str, str]]
) -> None:
    here, environ = surrounded
    code = (
        "import chorus_server.app, chorus_server.embedded, prompts_store, chorus\n"
        "print(chorus_server.embedded.embedded_folder())\n"
        "print(*(each.__file__ for each in (chorus_server.app, prompts_store, chorus)), sep='\\n')"
    )
    done = subprocess.run(
        [installed / "python", "-c", code], cwd=here, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = [Path(line) for line in done.stdout.split()]
    assert all(path.is_relative_to(installed.parent / "lib") for path in found), found
    assert found[0].parent.name == "chorus_server"


def test_a_module_called_server_would_be_noticed(
    installed: Path, surrounded: tuple[Path, dict[str, str]]
) -> None:
    """The control: whoever imports `server` gets theirs, from either place."""
    here, environ = surrounded
    for folder in (here, here.parent):
        command = [installed / "python", "-c", "import server"]
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
        assert done.returncode == 1 and "their server.py" in done.stderr
