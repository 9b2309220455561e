"""The count of what a change touches, on a tree small enough to count by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from concepts import naming, product, returns, settings, table, twice
from tests.places import ROOT

FILES = {
    "server/chorus_server/__init__.py": "",
    "server/chorus_server/errors.py": "class Refused(Exception): ...",
    "server/chorus_server/settings.py": "class Settings:\n    port: int\n    host: str = ''\n"
    "class DeprecatedSettings:\n    key: str\n",
    "server/chorus_server/api/__init__.py": "",
    "server/chorus_server/api/routes.py": "from chorus_server.step.run import run\n\nLIMIT = 1\n",
    "server/chorus_server/api/limits.py": "from chorus_server.errors import Refused\n\nheat = 1\n",
    "server/chorus_server/step/__init__.py": "",
    "server/chorus_server/step/run.py": (
        '"""Nothing of heat."""\nfrom chorus_server.api.limits import heat\n\nLIMIT = 2\n\ndef run(): ...\n'
    ),
    "prompts_store/__init__.py": "",
    "prompts_store/rows.py": "HEAT_ROWS = 'preheated'\n",
    "clients/chorus/__init__.py": "# heat\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_a_file_names_a_thing_by_identifier_import_or_string_not_in_prose(tree: Path) -> None:
    found = [file.as_posix() for file in naming(product(tree), ("heat",))]
    assert found == [
        "prompts_store/rows.py",
        "server/chorus_server/api/limits.py",
        "server/chorus_server/step/run.py",
    ]


def test_names_settings_and_returns(tree: Path) -> None:
    files = product(tree)
    assert twice(files) == {
        "LIMIT": ["server/chorus_server/api/routes.py", "server/chorus_server/step/run.py"]
    }
    assert settings(files) == 2 and settings(files, deprecated=True) == 1
    assert returns(files) == [("chorus_server.step.run", "chorus_server.api.limits")]


def test_the_table_counts_this_tree() -> None:
    rows = dict(table(ROOT))
    for reached in (
        "returns",
        "returns with an end in tuning",
        "public names of the server that stand twice",
    ):
        assert rows.pop(reached) == 0
    assert all(rows.values())


def test_no_public_name_of_the_server_stands_twice() -> None:
    assert not twice(product(ROOT)), "one name for one thing: choose another"


def test_no_chain_of_imports_enters_a_package_again() -> None:
    assert not returns(product(ROOT)), "put what both ends need below both, or one end above the other"
