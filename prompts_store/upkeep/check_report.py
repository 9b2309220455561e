"""The result of a check of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Kind(NamedTuple):
    """What a kind of problem means and what to do about it, in sentences for an operator."""

    meaning: str
    advice: str


_REPAIR = "`chorus store check --repair` computes it again from the versions."

KINDS = {
    "other_store": Kind(
        "The database and its folders may belong to different stores. Nothing is collected.",
        "Start Chorus with the data folder and the database that belong together. If this is the right "
        "database, `chorus store adopt` shows what it knows of the folders and gives them its id.",
    ),
    "database": Kind(
        "SQLite says that the database file is damaged, or that a row refers to a missing one.",
        "Stop every process that uses the data folder, keep a copy of it, and restore the last backup of "
        "the database.",
    ),
    "audit_log": Kind(
        "An audit log is not what the store wrote: rows were changed, removed or moved behind its back.",
        "Keep a copy of the database, and find out who could write it. Compare the log with the last backup, "
        "or with rows that were exported; it is not repaired.",
    ),
    "missing_blob": Kind(
        "Values of live versions are missing. Requests for them get an error.",
        "Publish the same values again, to any task, or restore the file from a backup of blobs/. If many "
        "are missing, check that the data folder is the right one and that its disk is mounted.",
    ),
    "corrupt_blob": Kind(
        "Stored values are damaged. Requests for them get an error, never wrong values.",
        "Publish the same values again, to any task, or restore the file from a backup of blobs/; either "
        "replaces it. Until then it is left in place.",
    ),
    "missing_file": Kind(
        "The content of a data file is missing. Jobs that learn from it fail.",
        "Upload the same content again, or restore it from a backup of files/.",
    ),
    "corrupt_file": Kind(
        "The content of a data file is damaged.",
        "Upload the same content again, or restore it from a backup of files/; either replaces it.",
    ),
    "wrong_count": Kind(
        "The database has a wrong count of the live versions that name a blob, so the blob might be removed "
        "too early or never.",
        _REPAIR,
    ),
    "wrong_task": Kind("A task's row has a wrong number of live versions, or a wrong latest one.", _REPAIR),
    "wrong_labels": Kind("Lists find a task by labels that its live version does not have.", _REPAIR),
    "wrong_job": Kind(
        "A job has more events than its row says, so its next event would be refused.",
        "`chorus store check --repair` counts them again.",
    ),
    "wrong_use": Kind(
        "A tenant is counted as keeping more or less than it does, so it reaches its limits too early or too "
        "late.",
        "`chorus store check --repair` counts again.",
    ),
    "wrong_limits": Kind(
        "The limits of a tenant or a key cannot be read. Whoever asks with its key gets an error.",
        "Set them again: `chorus tenants update TENANT --limit ...`, or `--no-limits`.",
    ),
    "lost_key": Kind(
        "A key belongs to a tenant that has no row. It lets nobody in.",
        "Restore the last backup of the database if the tenant should be there.",
    ),
    "wrong_changes": Kind(
        "The feed of changes has holes, so a process may go by what is no longer true.",
        "Restart every process on the database. The holes go with the feed's rows, after an hour.",
    ),
    "wrong_usage": Kind(
        "Usage of single items and its sums of hours and days do not fit each other: rows were changed or "
        "removed behind the store's back.",
        "Compare `chorus usage` with the last backup. It is not repaired: nothing tells which is right.",
    ),
    "dangling_alias": Kind(
        "An alias names a version that was deleted. Requests for it get an error.",
        "Move it to a live version: `chorus tasks promote TASK VERSION --alias ALIAS`. An ensemble's alias "
        "or a pack's goes when that is deleted.",
    ),
    "dangling_grant": Kind(
        "Something is granted that is not there. What is made under its name would be shared at once.",
        "`chorus store check --repair` ends the grant.",
    ),
    "wrong_manifest": Kind(
        "A version's template, labels, settings or base are not the published ones.",
        "Publish the version again from its source, promote that one, and delete this one.",
    ),
}
"""Every kind of problem."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A promise of the store that is broken.

    Attributes:
        kind: a key of `KINDS`.
        where: the digest, task, alias or job.
        repaired: whether this run corrected it. Bytes cannot be computed: publish or upload them again, or
            restore a backup.
    """

    kind: str
    where: str
    message: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Attributes:
        versions: number of live versions.
        blobs: number of blobs of prompts.
        files: number of different contents of live data files.
        orphans: blobs and contents that nothing names. They are not a problem: an upload is under way, or was
            interrupted. `collect` removes them.
        temporary_files: the same for temporary files.
        problems: all of them, or the first of each kind.
        found: how many problems of each kind there are.
    """

    versions: int
    blobs: int
    orphans: int
    temporary_files: int
    problems: tuple[Problem, ...]
    files: int = 0
    found: Mapping[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether every promise is kept."""
        return not self.problems
