"""Every error code that a caller may see is in the reference for people."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from prompts_store.artifacts import REASONS
from tests.places import ROOT

ROOMS = (
    "server/chorus_server/api",
    "server/chorus_server/connections",
    "server/chorus_server/engine",
    "server/chorus_server/tenancy",
    "prompts_store",
)
AT_START_ONLY = {
    "invalid_blob_place",
    "invalid_database_url",
    "store_not_empty",
    "invalid_model",
    "memory_plan",
}
# Of the collector, `chorus store` and `chorus tenants bootstrap`: no route.
OF_OPERATORS = {"key_exists", "mass_removal", "no_store", "other_store", "store_not_empty"}
OF_OUR_OWN_CODE = {"invalid_kind", "invalid_right"}  # routes name them, and check rights
NOBODY_LEFT_TO_TELL = {"cancelled"}


_SERVER = ROOT / "server" / "chorus_server"
CODES_OF_A_JOB = (
    _SERVER / "tuning",
    _SERVER / "jobs",
    _SERVER / "api" / "calibration",
    _SERVER / "api" / "evaluation",
    _SERVER / "api" / "batch",
)


def _codes(path: Path) -> set[str]:
    """String constants that are given as `code=` or `default_code`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "code":
            value: ast.expr | None = node.value
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            value = node.value if "default_code" in names else None
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            places = {"failure": 0}  # of what jobs do: the code's place among the arguments
            place = places.get(name) if set(CODES_OF_A_JOB) & set(path.parents) else None
            place = 1 if name == "RefusedError" else place
            value = node.args[place] if place is not None and len(node.args) > place else None
        else:
            continue
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            found.add(value.value)
    return found


def _of_a_job() -> set[str]:
    return set().union(*(_codes(path) for room in CODES_OF_A_JOB for path in room.rglob("*.py")))


def _seen_by_callers() -> set[str]:
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    codes = set().union(*map(_codes, [*paths, ROOT / "server" / "chorus_server" / "errors.py"]))
    others = AT_START_ONLY | OF_OPERATORS | OF_OUR_OWN_CODE | NOBODY_LEFT_TO_TELL
    return codes - set(map(str, REASONS)) - others


@pytest.mark.parametrize("code", sorted(_seen_by_callers()))
def test_every_code_is_in_the_reference(code: str) -> None:
    assert f"`{code}`" in (ROOT / "docs" / "rest.md").read_text()


@pytest.mark.parametrize("code", sorted(_of_a_job() | {"data_unreachable"}))
def test_every_code_of_a_job_is_in_the_reference(code: str) -> None:
    """Those that routes raise are there too, so the words of both are looked for in one page."""
    assert f"`{code}`" in (ROOT / "docs" / "rest.md").read_text()


@pytest.mark.parametrize("code", sorted(OF_OPERATORS))
def test_every_code_without_a_route_is_in_the_page_of_the_store(code: str) -> None:
    assert f"`{code}`" in (ROOT / "docs" / "store.md").read_text()


@pytest.mark.parametrize("reason", sorted(map(str, REASONS)))
def test_every_reason_of_an_artifact_is_in_its_page(reason: str) -> None:
    assert f"`{reason}`" in (ROOT / "docs" / "artifacts.md").read_text()


def test_the_scan_finds_codes() -> None:
    found = _of_a_job()
    assert {"one_class", "diverged", "disk_failed", "same_target"} <= found
    assert {
        "invalid_cursor",
        "deadline_exceeded",
        "prompt_not_finite",
        "unknown_field",
        "request_timeout",
    } <= _seen_by_callers()
