"""`chorus tenants bootstrap` on real data folders: the key that it prints, and when it refuses."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chorus_server.tenants_cli import bootstrap
from prompts_store import PromptStore
from prompts_store.tenants.key_format import matches, public_part
from prompts_store.tenants.records import SCOPES
from tests.places import ROOT
from tests.postgres_server import PostgresServer


def run(folder: Path, *arguments: str, **environment: str) -> Result:
    """The command, with its settings from the environment, as beside `chorus serve`."""
    return CliRunner().invoke(bootstrap, arguments, env={"CHORUS_DATA_DIR": str(folder)} | environment)


def made(result: Result) -> str:
    """The key that was printed, alone."""
    assert result.exit_code == 0, result.output
    secret = result.stdout.removesuffix("\n")
    assert public_part(secret) is not None and secret not in result.stderr
    return secret


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where nothing is yet."""
    return tmp_path / "data"


@pytest.fixture
def store(folder: Path) -> Iterator[PromptStore]:
    """A store that somebody else has open, as a running server has."""
    with closing(PromptStore.open(folder)) as opened:
        yield opened


def test_a_fresh_folder_gets_a_store_a_tenant_and_a_key_with_every_scope(folder: Path) -> None:
    result = run(folder)
    secret = made(result)
    with closing(PromptStore.open(folder, make=False)) as store:
        found = store.find_key(public_part(secret) or "")
        assert found is not None and matches(secret, found.digest) and found.status == "active"
        key = found.key
        assert (key.tenant, key.name, key.scopes, key.tasks) == ("default", "operator", SCOPES, None)
        assert (key.created_by, key.expires_at) == ("bootstrap", None)
        assert store.holds_keys()
    assert result.stderr == (
        f"note: {key.id} of the tenant default has every scope. Keep the key now: it is not shown again.\n"
    )


def test_a_second_is_made_only_when_it_is_wanted(folder: Path, store: PromptStore) -> None:
    first = made(run(folder))
    refused = run(folder, "--tenant", "elsewhere")
    assert (refused.exit_code, refused.stdout) == (1, "")
    (key,) = store.list_keys("default").items
    assert refused.stderr == (
        f"Error: There is a live key with the scope operator already: {key.id} of the tenant 'default'. "
        "Use that one, or make another with --another.\n"
    )
    assert [tenant.name for tenant in store.list_tenants().items] == ["default"], "no name is used up"
    assert made(run(folder, "--another", "--tenant", "elsewhere", "--name", "night-shift")) != first
    (other,) = store.list_keys("elsewhere").items
    assert other.name == "night-shift"
    made(run(folder, "--another"))
    third = run(folder, "--another")
    assert third.exit_code == 1 and "Two live keys have the name 'operator'" in third.stderr


def test_a_key_that_lets_nobody_in_does_not_count(folder: Path, store: PromptStore) -> None:
    """A lost operator key is replaced once it was revoked, or its tenant was suspended or deleted."""
    store.create_tenant("acme")
    store.create_key("acme", "app", scopes=[scope for scope in SCOPES if scope != "operator"])
    made(run(folder))
    (key,) = store.list_keys("default").items
    assert run(folder).exit_code == 1
    store.revoke_key("default", key.id)
    made(run(folder, "--tenant", "acme"))
    assert run(folder).exit_code == 1
    store.suspend_tenant("acme")
    made(run(folder, "--tenant", "third"))
    assert run(folder).exit_code == 1
    store.delete_tenant("third", grace_seconds=0)
    made(run(folder))


@pytest.mark.parametrize(
    ("change", "tenant", "words"),
    [
        ("suspend", "acme", "Error: tenant: The tenant 'acme' is suspended"),
        ("delete", "acme", "Error: tenant: There is no tenant 'acme', or it was deleted."),
        ("nothing", "No Such Name", "Error: tenant: "),
    ],
)
def test_a_tenant_whose_keys_are_refused_gets_none(
    folder: Path, store: PromptStore, change: str, tenant: str, words: str
) -> None:
    store.create_tenant("acme")
    if change == "suspend":
        store.suspend_tenant("acme")
    elif change == "delete":
        store.delete_tenant("acme", grace_seconds=0)
    result = run(folder, "--tenant", tenant)
    assert (result.exit_code, result.stdout) == (1, "") and result.stderr.startswith(words), result.stderr
    assert len(result.stderr.splitlines()) == 1 and not store.holds_keys()


def test_it_works_on_postgresql(folder: Path, postgres_server: PostgresServer) -> None:
    url = postgres_server.emptied()
    made(run(folder, "--database-url", url))
    refused = run(folder, CHORUS_DATABASE_URL=url)
    assert refused.exit_code == 1 and "There is a live key with the scope operator" in refused.stderr


def test_it_is_an_entry_point_below_the_clients_group_and_starts_without_jax(folder: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    value = project["entry-points"]["chorus.commands.tenants"]["bootstrap"]
    code = (
        "import sys\nfrom importlib.metadata import EntryPoint\n"
        f"EntryPoint('bootstrap', {value!r}, 'chorus.commands.tenants').load()([], standalone_mode=False)\n"
        "print('jax' in sys.modules, 'fastapi' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"CHORUS_DATA_DIR": str(folder), "PATH": ""},
        cwd=ROOT,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    secret, imported = done.stdout.splitlines()
    assert public_part(secret) is not None and imported == "False False"
