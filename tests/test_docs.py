"""The documentation is true: what exists is named, and what is linked exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from chorus_server.api.metrics import Metrics
from chorus_server.settings import Settings
from tests.places import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def _packages() -> list[str]:
    found = [
        p.parent for top in ("server", "prompts_store", "clients") for p in ROOT.glob(f"{top}/**/__init__.py")
    ]
    return sorted(str(folder.relative_to(ROOT)) for folder in found)


@pytest.mark.parametrize("package", _packages())
def test_every_package_has_a_line_in_the_architecture(package: str) -> None:
    assert f"`{package}/`" in (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented(name: str) -> None:
    assert f"CHORUS_{name.upper()}" in (ROOT / "docs" / "settings.md").read_text()


@pytest.mark.parametrize("name", sorted(series.name for series in Metrics().registry.table))
def test_every_metric_is_documented(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs" / "metrics.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def _published_installs(text: str) -> list[str]:
    """Commands that install Chorus from a package index."""
    return re.findall(r"pip install [^`\n]*chorus-prompts[^`\n]*", text)


def test_nothing_tells_to_install_a_release_that_is_not_there() -> None:
    assert "0.1.0 (unreleased)" in (ROOT / "CHANGELOG.md").read_text(), "released: tell `pip install` instead"
    assert _published_installs("run `pip install 'chorus-prompts[server]'` first"), "control"
    files = [
        *PAGES,
        *(f for top in ("server", "prompts_store", "clients") for f in (ROOT / top).rglob("*.py")),
    ]
    found = {str(file.relative_to(ROOT)): _published_installs(file.read_text()) for file in files}
    assert not {file: commands for file, commands in found.items() if commands}


def test_no_tracked_file_names_a_path_of_one_machine() -> None:
    pattern = "/" + "root/|/" + "work/|/" + "home/[a-z]"
    found = subprocess.run(
        ["git", "grep", "-nIE", pattern, "--", ".", ":!constraints.txt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1, found.stdout
