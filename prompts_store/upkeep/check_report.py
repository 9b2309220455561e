"""What a check of the store answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Kind(NamedTuple):
    """What a kind of problem means, and what to do about it, in sentences for an operator."""

    meaning: str
    advice: str


_REPAIR = "`chorus store check --repair` works it out anew from the versions."

KINDS = {
    "other_store": Kind(
        "The database and its folders may be of different stores. Nothing is collected.",
        "Start Chorus with the data folder and the database that belong together. If this is the right "
        "database, `chorus store adopt` shows what it knows of the folders and makes them its own.",
    ),
    "database": Kind(
        "SQLite finds the database file damaged, or a row that names one that is not there.",
        "Stop what uses the data folder, keep a copy of it, and restore the last backup of the database.",
    ),
    "missing_blob": Kind(
        "Values of live versions are not there. Whoever asks for them gets an error.",
        "Publish the same values again, to any task, or restore the file from a backup of blobs/. Where many "
        "are missing, look whether the data folder is the right one and its disk mounted.",
    ),
    "corrupt_blob": Kind(
        "Stored values are damaged. Whoever asks for them gets an error, never wrong values.",
        "Publish the same values again, to any task, or restore the file from a backup of blobs/; either "
        "replaces it. Until then it is left where it lies.",
    ),
    "missing_file": Kind(
        "The content of a data file is not there. Jobs that learn from it fail.",
        "Upload the same content again, or restore it from a backup of files/.",
    ),
    "corrupt_file": Kind(
        "The content of a data file is damaged.",
        "Upload the same content again, or restore it from a backup of files/; either replaces it.",
    ),
    "wrong_count": Kind(
        "The database counts wrongly how many live versions name a blob: it could go too early or never.",
        _REPAIR,
    ),
    "wrong_task": Kind("A task has another number of live versions, or a later one, than it says.", _REPAIR),
    "wrong_labels": Kind("Lists find a task by labels that its live version does not have.", _REPAIR),
    "wrong_job": Kind(
        "A job has more events than it says, so that its next one would be refused.",
        "`chorus store check --repair` counts them again.",
    ),
    "dangling_alias": Kind(
        "An alias names a version that was deleted. Whoever asks for it gets an error.",
        "Move it to a live version: `chorus tasks promote TASK VERSION --alias ALIAS`. An ensemble's goes "
        "when the ensemble is deleted.",
    ),
    "wrong_manifest": Kind(
        "A version's template, labels, settings or base are not those that were published.",
        "Publish the version again from its source, promote that one, and delete this one.",
    ),
}
"""Each kind of problem."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A promise that is not kept.

    Attributes:
        kind: a key of `KINDS`.
        where: the digest, task, alias or job.
        repaired: whether this run put it right. Bytes cannot be made up: publish or upload them again, or
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
        versions: live ones.
        blobs: of prompts.
        files: different contents of live data files.
        orphans: blobs and contents that nothing names. No problem: an upload in flight, or one that died;
            `collect` takes them.
        temporary_files: likewise.
    """

    versions: int
    blobs: int
    orphans: int
    temporary_files: int
    problems: tuple[Problem, ...]
    files: int = 0

    @property
    def clean(self) -> bool:
        """Whether every promise is kept."""
        return not self.problems
