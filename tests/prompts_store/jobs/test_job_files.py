"""Which files belong to jobs that may be seen. What a key may see is asked over HTTP, in `test_seeing`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event, update

from prompts_store import PromptStore
from prompts_store.database.job_tables import files
from prompts_store.files.records import DataFile
from prompts_store.jobs.records import Job
from prompts_store.testing import example_file

SPEC = {"base_fingerprint": "base"}


def test_of_the_jobs_that_read_a_file_only_as_many_are_read_as_it_takes(disk_store: PromptStore) -> None:
    """Newest first, some at a time, and none of those that read other files."""
    one, two, none = (example_file(disk_store, name) for name in (b"one", b"two", b"none"))
    oldest = disk_store.create_job("acme", "tuning", SPEC, files={"file": one.id})
    for _ in range(70):
        both = {"file": one.id, "examples": two.id}
        newest = disk_store.create_job("acme", "evaluation", SPEC, files=both, max_unfinished=100)
    made = example_file(disk_store, b"made", made_by=oldest.id)
    engine, reads = disk_store._database.engine, []

    def note(connection: Any, dbapi: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.startswith("SELECT"):
            reads.append((statement, parameters))

    def seen(may_see: Callable[[Job], bool]) -> tuple[list[str], int]:
        reads.clear()
        event.listen(engine, "before_cursor_execute", note)
        found = disk_store.files_seen("acme", [made, one, two, none], "key", "somebody", may_see)
        event.remove(engine, "before_cursor_execute", note)
        return [file.id for file in found], len([text for text, _ in reads if "FROM job_files" in text])

    first = seen(lambda job: job.id == newest.id)
    assert first == ([one.id, two.id], 2)
    for text, values in reads:
        with engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()
        for step in plan:
            assert "jobs_tenant" not in step[3] and "jobs_status" not in step[3], f"{step[3]} in {text}"
    assert seen(lambda job: job.id == oldest.id) == ([made.id, one.id], 2)
    asked: list[str] = []
    assert seen(lambda job: bool(asked.append(job.id))) == ([], 2)  # type: ignore[func-returns-value]
    assert len(asked) == 142, "each job is asked of each file that it reads or made, once"


def test_a_file_is_of_the_key_or_the_job_that_made_it_whatever_the_names(disk_store: PromptStore) -> None:
    """Names alone are known of what an older Chorus stored."""
    job = disk_store.create_job("acme", "tuning", SPEC, created_by="app")
    made = []
    for name, by in (
        (f"{job.id}-mine.jsonl", "key-1"),
        ("rows.csv", "key-1"),
        ("of a job", job.id),
        ("x", ""),
    ):
        with disk_store.write_file("acme", name, created_by="app", made_by=by, max_bytes=9) as writer:
            made.append(writer.commit())
    own, rows, result, nobodys = made
    found = [disk_store.get_file("acme", file.id) for file in made]
    assert found == made

    def seen(key: str, name: str, *, jobs: bool) -> list[DataFile]:
        return disk_store.files_seen("acme", found, key, name, lambda job: jobs)

    assert seen("key-1", "other", jobs=False) == [own, rows]
    assert seen("key-2", "app", jobs=True) == [result]
    with disk_store._database.write("acme") as connection:
        connection.execute(update(files).values(made_by=None))
    found = [disk_store.get_file("acme", file.id) for file in made]
    assert [file.id for file in seen("key-2", "app", jobs=True)] == [file.id for file in made]
    assert [file.id for file in seen("key-2", "app", jobs=False)] == [rows.id, result.id, nobodys.id]
