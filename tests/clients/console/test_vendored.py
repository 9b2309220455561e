"""Others' files are what their licences and digests say, and the console asks nothing but the client."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path

from tests.conftest import ROOT

CONSOLE = ROOT / "clients" / "console" / "chorus_console"
VENDOR = CONSOLE / "vendor"
ALLOWED = {"chorus", "chorus_console", "jinja2", "starlette"}


def outside(source: str) -> set[str]:
    """Top-level packages that a module imports, without those that come with Python."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found |= {name.partition(".")[0] for name in names}
    return found - sys.stdlib_module_names


def test_every_vendored_file_is_named_with_its_digest_and_licence() -> None:
    named = json.loads((VENDOR / "vendored.json").read_text())["files"]
    for each in named:
        assert hashlib.sha256((VENDOR / each["file"]).read_bytes()).hexdigest() == each["sha256"], each
        assert (VENDOR / each["licence_file"]).read_text().strip(), each
    known = {each[name] for each in named for name in ("file", "licence_file")} | {"vendored.json"}
    assert {path.name for path in VENDOR.iterdir()} == known


def test_the_console_imports_the_client_jinja_and_starlette_alone() -> None:
    for path in CONSOLE.rglob("*.py"):
        assert outside(path.read_text()) <= ALLOWED, path.name


def test_work_off_the_loop_is_bounded() -> None:
    """By `Visit.work`. The default threads of asyncio take any number of calls."""
    for path in CONSOLE.rglob("*.py"):
        text = path.read_text()
        assert "to_thread" not in text and "run_in_executor" not in text, path.name


def test_control_another_import_is_noticed() -> None:
    assert outside("import os\nfrom prompts_store.store import PromptStore") == {"prompts_store"}


def test_pages_have_no_script_or_style_of_their_own() -> None:
    """The content security policy would refuse them."""
    for path in Path(CONSOLE / "templates").iterdir():
        text = path.read_text()
        assert "<script>" not in text and "style=" not in text and "|safe" not in text, path.name
        assert " onclick=" not in text and "javascript:" not in text, path.name
