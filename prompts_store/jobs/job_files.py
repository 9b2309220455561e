"""Which jobs a data file belongs to: the one that made it, and those that read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, and_, select, tuple_

from prompts_store.base import StoreBase
from prompts_store.database.job_tables import files as file_table
from prompts_store.database.job_tables import job_files, jobs
from prompts_store.files.records import DataFile
from prompts_store.ids import JOB
from prompts_store.jobs.records import Job
from prompts_store.jobs.rows import job_record
from prompts_store.names import check_name

_NAMED = re.compile(r"(job-[0-9a-f]{24})-")
"""What the name of a file that a job made begins with. Others may call theirs so too."""

_PAIRS_AT_ONCE = 100


class JobFiles(StoreBase):
    """Files by the jobs that they belong to."""

    def files_seen(
        self, tenant: str, found: Sequence[DataFile], key: str, name: str, may_see: Callable[[Job], bool]
    ) -> list[DataFile]:
        """Those of a tenant's files that belong to a job that may be seen. A file that belongs to no job yet
        is seen by whoever uploaded it.

        Args:
            found: as the store gave them.
            key, name: of the key that asks: its id, and its name, by which files are seen whose maker is not
                known.
        """
        check_name(tenant, field="tenant")
        makers = {file.id: job for file in found if (job := _job_of(file)) is not None}
        made = select(jobs).where(jobs.c.tenant == tenant, jobs.c.id.in_(set(makers.values())))
        with self._database.read(tenant) as connection:
            by_id = {row.id: may_see(job_record(row)) for row in connection.execute(made)} if makers else {}
            seen = _read_by_jobs(connection, tenant, {file.id for file in found}, may_see)
        for file, job in makers.items():
            if job in by_id:  # whoever else reads it
                seen[file] = by_id[job] or seen.get(file, False)
        return [file for file in found if seen.get(file.id, _uploaded(file, key, name))]


def _job_of(file: DataFile) -> str | None:
    """The job that made a file; None if none did."""
    if file.made_by is not None:
        return file.made_by if file.made_by.startswith(f"{JOB}-") else None
    match = _NAMED.match(file.name)
    return match and match[1]


def _uploaded(file: DataFile, key: str, name: str) -> bool:
    return file.created_by == name if file.made_by is None else file.made_by == key


def _read_by_jobs(
    connection: Connection, tenant: str, unseen: set[str], may_see: Callable[[Job], bool]
) -> dict[str, bool]:
    """For each of the files that jobs read, whether one of these jobs may be seen. Jobs are read some at a
    time, newest first, until every file is seen: years of them, with their results, may be of one file."""
    found = select(file_table.c.number, file_table.c.id).where(
        file_table.c.tenant == tenant, file_table.c.id.in_(unseen)
    )
    left = {row.number: row.id for row in connection.execute(found)}
    seen: dict[str, bool] = {}
    place = job_files.c.job_number, job_files.c.file_number
    step = select(job_files).order_by(*(column.desc() for column in place)).limit(_PAIRS_AT_ONCE)
    last: tuple[int, int] | None = None
    while left:
        some = step.where(job_files.c.file_number.in_(left))
        pairs = (some if last is None else some.where(tuple_(*place) < last)).subquery()
        of_pair = and_(jobs.c.number == pairs.c.job_number, jobs.c.tenant == tenant)
        # An outer join, so that SQLite begins with the pairs and not with all jobs of the tenant.
        joined = select(pairs.c.job_number, pairs.c.file_number, jobs).outerjoin_from(pairs, jobs, of_pair)
        order = pairs.c.job_number.desc(), pairs.c.file_number.desc()
        rows = connection.execute(joined.order_by(*order)).all()
        for row in rows:
            file = left[row.file_number]
            seen[file] = seen.get(file) or may_see(job_record(row))
        if len(rows) < _PAIRS_AT_ONCE:
            break
        left = {number: file for number, file in left.items() if not seen.get(file)}
        last = rows[-1].job_number, rows[-1].file_number
    return seen
