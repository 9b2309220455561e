"""What a check of the store answers with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A promise that is not kept.

    Attributes:
        kind: `database`, `missing_blob`, `corrupt_blob`, `wrong_count`, `wrong_manifest`, `dangling_alias`,
            `wrong_task`, `wrong_labels`, `missing_file`, `corrupt_file`, `wrong_job`.
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
