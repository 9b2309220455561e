"""Which jobs a data file belongs to: the one that made it, and those that read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sqlalchemy import select

from prompts_store.base import StoreBase
from prompts_store.database.job_tables import files as file_table
from prompts_store.database.job_tables import job_files, jobs
from prompts_store.files.records import DataFile
from prompts_store.jobs.records import Job
from prompts_store.jobs.rows import job_record
from prompts_store.names import check_name

_MADE_BY = re.compile(r"(job-[0-9a-f]{24})-")
"""What the name of a file that a job made begins with."""


class JobFiles(StoreBase):
    """Files by the jobs that they belong to."""

    def files_seen(
        self, tenant: str, found: Sequence[DataFile], uploader: str, may_see: Callable[[Job], bool]
    ) -> list[DataFile]:
        """Those of a tenant's files that belong to a job that may be seen. A file that belongs to no job yet
        is seen by whoever uploaded it.

        Args:
            found: as the store gave them.
            uploader: what the file says of who made it, see `DataFile.created_by`.
        """
        check_name(tenant, field="tenant")
        makers = {file.id: match[1] for file in found if (match := _MADE_BY.match(file.name))}
        made = select(jobs).where(jobs.c.tenant == tenant, jobs.c.id.in_(set(makers.values())))
        read = (
            select(jobs, file_table.c.id.label("file_id"))
            .join(job_files, job_files.c.job_number == jobs.c.number)
            .join(file_table, file_table.c.number == job_files.c.file_number)
            .where(jobs.c.tenant == tenant, file_table.c.id.in_([file.id for file in found]))
            .order_by(jobs.c.number.desc())
        )
        seen: dict[str, bool] = {}
        with self._database.read(tenant) as connection:
            by_id = {row.id: may_see(job_record(row)) for row in connection.execute(made)}
            for row in connection.execute(read):
                seen[row.file_id] = seen.get(row.file_id) or may_see(job_record(row))
        for file, job in makers.items():
            if job in by_id:  # whoever else reads it
                seen[file] = by_id[job] or seen.get(file, False)
        return [file for file in found if seen.get(file.id, file.created_by == uploader)]
