"""Replicas of the code before issue 19 (commit c207f185) and of today's, side by side on one PostgreSQL and
one folder, as while a rolling update goes on: the tables are today's, and both serve, change and run jobs."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from prompts_store.artifacts import write_artifact
from tests.end_to_end import older_code
from tests.end_to_end.served import CHORUS, TINY, Served
from tests.places import ROOT
from tests.postgres_server import PostgresServer
from tests.server.api.api_harness import eventually, prompt

pytestmark = pytest.mark.usefixtures("compiled_quickly")

OPERATOR = "an-operator-of-tests-0123456789"
WIDTH = 26
RAW = {"content-type": "application/octet-stream"}
OLDER_TINY = {
    "input_lengths": "48",
    "batch_rows": "1,4",
    "blocks": "48x8x4",
    "score_buckets": "2x16",
    "prompt_rows": 64,
    "layout": "unrolled",
}
"""`TINY` as the older code's settings say it."""
ROWS = [{"text": f"the film was {word}", "label": "yes"} for word in ("good", "bad", "it", "an")] * 4


@dataclass
class Both:
    """The older replica and today's."""

    older: Served
    newer: Served
    url: str

    def each(self) -> list[tuple[Served, Served]]:
        """Who changes something, and who has to see it."""
        return [(self.older, self.newer), (self.newer, self.older)]

    def newest_migration(self) -> str:
        with psycopg.connect(self.url) as connection:
            (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            return str(found[0])


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    compile_cache: Path,
    postgres_server: PostgresServer,
) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("both")
    key = folder / "operator"
    key.write_text(OPERATOR)
    url = postgres_server.create()
    options: dict[str, Any] = {"model": tiny_model, "database_url": url, "operator_key_file": key}
    options |= {"compile_cache_dir": compile_cache}
    command = older_code.command(older_code.unpacked(folder / "code"))
    with Served(folder / "data", command=command, **options, **OLDER_TINY) as older:
        older.wait_ready()
        found = Both(older, older, url)
        assert found.newest_migration() == older_code.REVISION
        # As the rolling update of deploy/kubernetes does: the tables first, then replicas of the new code.
        migrate = [CHORUS, "store", "migrate", "--database-url", url, "--data-dir", str(folder / "data")]
        subprocess.run(migrate, check=True, capture_output=True, timeout=300)
        with Served(folder / "data", **options, **TINY) as newer:
            newer.wait_ready()
            found.newer = newer
            assert found.newest_migration() > older_code.REVISION
            for server in (older, newer):
                server.http.headers["authorization"] = f"Bearer {OPERATOR}"
            yield found


def publish(server: Served, task: str, seed: int) -> None:
    answer = server.http.post(
        f"/v1/tasks/{task}/versions",
        content=write_artifact(prompt(3, seed, WIDTH), "safetensors"),
        headers=RAW,
    )
    assert answer.status_code == 201, answer.text


def version(server: Served, task: str) -> Any:
    """That which answers; the status if none does."""
    answer = server.http.post("/v1/generate", json={"task": task, "input": "the film", "max_new_tokens": 2})
    return answer.json()["results"][0]["version"] if answer.status_code == 200 else answer.status_code


def test_each_publishes_and_promotes_what_the_other_serves(both: Both) -> None:
    for name, (one, other) in zip(("of-older", "of-newer"), both.each(), strict=True):
        publish(one, name, 1)
        assert version(one, name) == version(other, name) == 1
        publish(other, name, 2)
        moved = other.http.put(f"/v1/tasks/{name}/aliases/live", json={"version": 2})
        assert moved.status_code == 200, moved.text
        eventually(lambda one=one, name=name: version(one, name) == 2)  # type: ignore[misc]
        removed = one.http.delete(f"/v1/tasks/{name}")
        assert removed.status_code in (200, 204), removed.text
        eventually(lambda other=other, name=name: version(other, name) == 404)  # type: ignore[misc]


def test_each_sees_what_the_other_revokes(both: Both) -> None:
    def status(server: Served, key: str) -> int:
        return server.http.get("/v1/me", headers={"authorization": f"Bearer {key}"}).status_code

    for name, (one, other) in zip(("older", "newer"), both.each(), strict=True):
        one.post("/v1/tenants", {"name": name})
        key = one.post(f"/v1/keys?tenant={name}", {"name": "k", "scopes": ["infer"]})
        eventually(lambda: status(other, key["key"]) == 200)  # noqa: B023 - it is called before the next
        one.http.delete(f"/v1/keys/{key['id']}?tenant={name}").raise_for_status()
        eventually(lambda: status(other, key["key"]) == 401)  # noqa: B023


def test_jobs_of_each_are_taken_once(both: Both) -> None:
    """Whoever takes them."""
    content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    jobs = []
    for one, _ in both.each() * 2:
        file = one.http.post("/v1/files", params={"name": "rows.jsonl"}, content=content, headers=RAW).json()
        subject = {"base": {"instruction": "was it good", "template": "{text}"}}
        body = {"subjects": [subject], "file": file["id"], "labels": ["no", "yes"]}
        jobs.append(one.post("/v1/evaluations", body)["id"])
    for number, job in enumerate(jobs):
        asked = both.each()[number % 2][1]
        found: dict[str, Any] = {}

        def over() -> bool:
            found.update(asked.http.get(f"/v1/evaluations/{job}").json())  # noqa: B023
            return found["finished_at"] is not None  # noqa: B023

        eventually(over)
        assert (found["status"], found["progress"]["rows"]) == ("succeeded", len(ROWS)), found
    with psycopg.connect(both.url) as connection:
        attempts = connection.execute("SELECT id, attempt, lease_token FROM jobs ORDER BY number").fetchall()
    assert attempts == [(job, 1, 1) for job in jobs]


def test_control_a_migration_that_renames_a_column_ends_the_older_one(both: Both) -> None:
    with psycopg.connect(both.url, autocommit=True) as connection:
        connection.execute("ALTER TABLE versions RENAME COLUMN created_by TO publisher")
        try:
            answer = both.older.http.get("/v1/tasks/nothing/versions")
            publishing = both.older.http.post(
                "/v1/tasks/late/versions",
                content=write_artifact(prompt(3, 5, WIDTH), "safetensors"),
                headers=RAW,
            )
        finally:
            connection.execute("ALTER TABLE versions RENAME COLUMN publisher TO created_by")
    assert publishing.status_code == 503, (answer.text, publishing.text)
    publish(both.older, "late", 5)


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_archive_is_that_commits(tmp_path: Path) -> None:
    places = ("server/chorus_server", "prompts_store", "clients/chorus")
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", older_code.COMMIT, *places]
    done = subprocess.run(command, capture_output=True, timeout=300)
    if done.returncode:
        pytest.skip(f"no history of {older_code.COMMIT} here")

    def files(archive: tarfile.TarFile) -> dict[str, bytes]:
        members = [member for member in archive if member.isfile()]
        return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]

    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as wanted, tarfile.open(older_code.ARCHIVE) as kept:
        assert files(kept) == files(wanted)
