"""`chorus store` on real data folders: what it says, what it changes, and its exit codes."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chorus_server.store_cli import store as command
from prompts_store import PromptStore
from prompts_store.database import migrate
from prompts_store.testing import example_file, example_prompt
from prompts_store.upkeep.check_report import KINDS
from tests.newer_store import HEAD, NEWEST, with_migration
from tests.places import ROOT
from tests.postgres_server import PostgresServer, as_role

MANY = 24


def run(folder: Path, *arguments: str, **environment: str) -> Result:
    """Run a verb with its options from the environment, as beside `chorus serve`."""
    variables = {"CHORUS_DATA_DIR": str(folder), "CHORUS_COLLECT_GRACE_SECONDS": "0"} | environment
    return CliRunner().invoke(command, arguments, env=variables)


def digest(seed: int) -> str:
    return example_prompt(seed)[1].digest


def blob(folder: Path, seed: int) -> Path:
    return folder / "blobs" / digest(seed)[:2] / f"{digest(seed)}.npy"


def blobs(folder: Path) -> int:
    return len(list(folder.glob("blobs/??/*")))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[PromptStore, Path]]:
    """A store that somebody else has open, as a running server has."""
    folder = tmp_path / "data"
    with closing(PromptStore.open(folder)) as opened:
        for seed in range(3):
            opened.publish("acme", f"task-{seed}", *example_prompt(seed, labels=("yes", "no")))
        example_file(opened, b"rows")
        yield opened, folder


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """24 blobs beside a database that was made anew."""
    folder = tmp_path / "data"
    with closing(PromptStore.open(folder)) as opened:
        for seed in range(MANY):
            opened.publish("acme", f"task-{seed}", *example_prompt(seed))
    (folder / "chorus.db").unlink()
    PromptStore.open(folder).close()
    return folder


def test_a_sound_store_is_said_to_be_one(served: tuple[PromptStore, Path]) -> None:
    result = run(served[1], "check")
    assert result.exit_code == 0
    assert "3 live versions, 3 blobs and 1 data files were checked.\nNothing is wrong." in result.stdout
    assert result.stdout.endswith("Row-level security: not up: SQLite has none.\n")
    found = json.loads(run(served[1], "check", "--json").stdout)
    assert found["clean"] and found["fence_fault"] == "SQLite has none"
    assert found["clean"] and found["problems"] == [] and (found["versions"], found["files"]) == (3, 1)


def test_the_owner_makes_the_tables_and_the_servers_login_finds_the_fence_up(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    url = postgres_server.create()
    postgres_server.fence(url)
    owner, app = (as_role(url, role) for role in ("chorus_migrate", "chorus_app"))
    refused = run(tmp_path, "migrate", CHORUS_DATABASE_URL=app)
    assert refused.exit_code == 1 and "chorus_migrate" in refused.stderr
    said = run(tmp_path, "migrate", CHORUS_DATABASE_URL=owner).stdout
    assert said == f"The tables are up to date (migration {HEAD}).\n"
    PromptStore.open(tmp_path, database_url=app).close()
    assert "Row-level security: up." in run(tmp_path, "check", CHORUS_DATABASE_URL=app).stdout
    assert "owns the tables" in run(tmp_path, "check", CHORUS_DATABASE_URL=owner).stdout


@pytest.mark.usefixtures("real_migrations")
@pytest.mark.parametrize("serves", [True, False])
def test_tables_of_a_newer_chorus_are_not_said_to_be_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serves: bool
) -> None:
    revision = f"9999_serves_{NEWEST}" if serves else f"9999_serves_{int(NEWEST) + 1:04}"
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_FOLDER", with_migration(tmp_path / "newer", revision))
        migrate.newest.cache_clear()
        assert f"up to date (migration {revision})" in run(tmp_path, "migrate").stdout
    migrate.newest.cache_clear()
    result = run(tmp_path, "migrate")
    assert result.exit_code == (0 if serves else 1)
    said = result.stdout if serves else result.stderr
    assert revision in said and HEAD in said and "up to date" not in said
    assert ("Nothing was changed" if serves else "Upgrade Chorus") in said


def test_damage_is_explained_and_repaired_where_nothing_is_lost(served: tuple[PromptStore, Path]) -> None:
    opened, folder = served
    damaged, gone = blob(folder, 0), blob(folder, 1)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    gone.unlink()
    with closing(sqlite3.connect(folder / "chorus.db")) as raw:
        raw.executescript("UPDATE blobs SET reference_count = 7; UPDATE tasks SET live_versions = 9")
    result = run(folder, "check")
    assert result.exit_code == 1
    for kind in ("corrupt_blob", "missing_blob", "wrong_count", "wrong_task"):
        assert f"\n{kind} (" in result.stdout
        assert KINDS[kind].meaning in result.stdout and KINDS[kind].advice in result.stdout
    assert f"{digest(1)}: it is missing; named by acme/task-1@1" in result.stdout
    assert "8 found, 0 repaired, 8 left." in result.stdout

    result = run(folder, "check", "--repair", "--json")
    found = json.loads(result.stdout)["problems"]
    assert result.exit_code == 1, "bytes cannot be made up"
    assert {one["kind"] for one in found if not one["repaired"]} == {"corrupt_blob", "missing_blob"}
    assert all(one["meaning"] and one["advice"] for one in found)
    assert damaged.exists(), "a damaged blob is evidence"

    for seed in (0, 1):
        opened.publish("acme", f"task-{seed}", *example_prompt(seed, labels=("yes", "no")))
    assert run(folder, "check").exit_code == 0


def test_a_repair_that_leaves_nothing_wrong_is_a_success(served: tuple[PromptStore, Path]) -> None:
    with closing(sqlite3.connect(served[1] / "chorus.db")) as raw:
        raw.executescript("UPDATE blobs SET reference_count = 7")
    result = run(served[1], "check", "--repair")
    assert (result.exit_code, "wrong_count (3, repaired)" in result.stdout) == (0, True)
    assert "3 found, 3 repaired, 0 left." in result.stdout


def test_a_collection_is_shown_and_then_made(served: tuple[PromptStore, Path]) -> None:
    opened, folder = served
    opened.delete_task("acme", "task-0")
    result = run(folder, "collect", "--dry-run", CHORUS_COLLECT_GRACE_SECONDS="3600")
    assert "Would remove 0 blobs of deleted versions" in result.stdout
    result = run(folder, "collect", "--dry-run")
    assert result.exit_code == 0 and f"blob   {digest(0)}" in result.stdout
    assert "Would remove 1 blobs of deleted versions" in result.stdout and "(188 bytes)" in result.stdout
    (planned,) = json.loads(run(folder, "collect", "--dry-run", "--json").stdout)["removals"]
    assert planned == {"kind": "blob", "digest": digest(0), "size_bytes": 188}
    assert blobs(folder) == 3
    result = run(folder, "collect", "--json")
    assert json.loads(result.stdout)["blobs"] == 1 and blobs(folder) == 2
    assert opened.check().clean


def test_a_backup_is_made_beside_a_server_and_restored(
    served: tuple[PromptStore, Path], tmp_path: Path
) -> None:
    opened, folder = served
    place, new = tmp_path / "a backup", tmp_path / "new"
    result = run(folder, "backup", str(place))
    assert result.exit_code == 0 and "3 blobs and 1 data files were copied." in result.stdout
    opened.publish("acme", "task-3", *example_prompt(3))
    assert json.loads(run(folder, "backup", str(place), "--json").stdout)["blobs"] == 1
    result = run(new, "restore", place.as_uri(), "--json")
    assert (result.exit_code, json.loads(result.stdout)["blobs"]) == (0, 4)
    assert run(new, "check").exit_code == 0
    with closing(PromptStore.open(new)) as restored:
        for seed in range(4):
            assert restored.values(digest(seed)).tobytes() == opened.values(digest(seed)).tobytes()
    again = run(new, "restore", str(place))
    assert again.exit_code != 0 and "not empty" in again.stderr
    blob(folder, 1).write_bytes(b"damaged")
    result = run(folder, "backup", str(tmp_path / "another"))
    assert result.exit_code == 1 and f"left out: {digest(1)}" in result.stderr


def test_a_lost_database_is_refused_adopted_and_braked(lost: Path) -> None:
    """The issue's 24 of 24, as an operator meets it."""
    for arguments in (["collect"], ["collect", "--allow-mass-removal"], ["collect", "--dry-run"]):
        result = run(lost, *arguments)
        assert result.exit_code == 1 and "chorus store adopt" in result.stderr
    assert run(lost, "check").exit_code == 1

    result = CliRunner().invoke(command, ["adopt", "--data-dir", str(lost)], input="n\n")
    assert result.exit_code == 1 and "blobs: 24 there; the database needs 0 of them" in result.stdout
    with closing(PromptStore.open(lost)) as opened:
        pairing = opened.pairing()
    assert not pairing.one and pairing.id is not None
    assert {pairing.id, pairing.folders[0].id} <= set(result.stdout.split())

    assert run(lost, "adopt", "--yes").exit_code == 0
    assert "nothing to do" in run(lost, "adopt", "--yes").stdout
    assert run(lost, "check").exit_code == 0
    result = run(lost, "collect")
    assert result.exit_code == 1 and "24 of 24 blobs" in result.stderr
    assert "chorus store collect --allow-mass-removal" in result.stderr
    result = run(lost, "collect", "--dry-run")
    assert result.exit_code == 1 and "The collection would be refused." in result.stderr
    assert run(lost, "collect", "--dry-run", "--allow-mass-removal").exit_code == 0
    assert blobs(lost) == MANY
    assert run(lost, "collect", "--allow-mass-removal").exit_code == 0
    assert blobs(lost) == 0


def test_on_postgresql_without_showing_its_password(tmp_path: Path, postgres_server: PostgresServer) -> None:
    url = postgres_server.create().replace("chorus@", "chorus:secret@")
    with closing(PromptStore.open(tmp_path, database_url=url)) as opened:
        opened.publish("acme", "sst2", *example_prompt(1))
    (tmp_path / "blobs" / "store-id").unlink()
    assert run(tmp_path, "check", CHORUS_DATABASE_URL=url).exit_code == 1
    result = run(tmp_path, "adopt", "--yes", "--database-url", url)
    assert result.exit_code == 0 and "secret" not in result.output and "no id" in result.stdout
    assert run(tmp_path, "check", CHORUS_DATABASE_URL=url).exit_code == 0
    assert run(tmp_path, "collect", CHORUS_DATABASE_URL=url).exit_code == 0


@pytest.mark.parametrize("verb", ["check", "collect", "adopt"])
def test_a_folder_without_a_store_is_told_and_stays_as_it_is(tmp_path: Path, verb: str) -> None:
    result = run(tmp_path / "nowhere", verb)
    assert result.exit_code == 1 and "There is no store in" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_settings_come_from_the_file_too_and_a_bad_one_is_named(served: tuple[PromptStore, Path]) -> None:
    config = served[1].parent / "chorus.toml"
    config.write_text(f'[store]\ndata_dir = "{served[1]}"\n')
    assert CliRunner().invoke(command, ["check", "--config", str(config)]).exit_code == 0
    result = run(served[1], "collect", "--collect-grace-seconds", "-1")
    assert result.exit_code == 1 and "collect_grace_seconds" in result.stderr


def test_every_kind_of_problem_is_explained() -> None:
    source = (ROOT / "prompts_store" / "upkeep").glob("*check*.py")
    text = "".join(path.read_text() for path in source if path.name != "check_report.py")
    found = set(re.findall(r'(?:Problem\(\s*|_add\(|return )"([a-z_]+)"', text))
    assert found == set(KINDS)


def _fresh_interpreter(*arguments: str, data_dir: Path) -> Any:
    """Run the installed verb in a process of its own: its output, and whether JAX was imported."""
    code = (
        "import sys\nfrom importlib.metadata import EntryPoint\n"
        f"verb = EntryPoint('store', {_entry_point()!r}, 'chorus.commands').load()\n"
        f"verb({[*arguments]!r}, standalone_mode=False)\n"
    )
    watched = (
        "import atexit, sys\natexit.register(lambda: print('jax' in sys.modules, 'fastapi' in sys.modules))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", watched + code],
        capture_output=True,
        text=True,
        env={"CHORUS_DATA_DIR": str(data_dir), "PATH": ""},
        cwd=ROOT,
        timeout=1200,
    )


def _entry_point() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    points: dict[str, str] = project["project"]["entry-points"]["chorus.commands"]
    return points["store"]


def test_the_verb_is_an_entry_point_and_starts_without_jax(served: tuple[PromptStore, Path]) -> None:
    done = _fresh_interpreter("check", data_dir=served[1])
    assert done.returncode == 0, done.stderr
    assert "Nothing is wrong." in done.stdout
    assert done.stdout.splitlines()[-1] == "False False"
