"""Whether a log is what was appended to it: every row's hash, every link, the head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from prompts_store.audit.chain import row_hash
from prompts_store.audit.records import AuditFault, AuditHead, AuditProblem, AuditReport, AuditRow

MAX_PROBLEMS = 1000
# How many places a row that does not fit its own is tried in.
_PLACES = 100


def verify(tenant: str, head: AuditHead | None, rows: Iterable[AuditRow]) -> AuditReport:
    """Compare a log with its hashes.

    Args:
        rows: all that are kept, in the order of their numbers.
    """
    walk = _Walk(head)
    for row in rows:
        walk.pass_row(row)
    walk.end()
    problems = sorted(walk.problems + walk.misplaced(), key=lambda problem: problem.sequence)
    return AuditReport(tenant, walk.rows, head, tuple(problems[:MAX_PROBLEMS]))


class _Walk:
    """Goes over the rows once. Rows whose hash is wrong are kept, because they may only be out of place."""

    def __init__(self, head: AuditHead | None) -> None:
        self._head = head
        self.rows = 0
        self.problems: list[AuditProblem] = []
        self._wrong: list[AuditRow] = []
        self._last = 0 if head is None else head.dropped
        # None where it is not known.
        self._last_hash: str | None = None if head is None else head.dropped_hash

    def pass_row(self, row: AuditRow) -> None:
        self.rows += 1
        if row.sequence != self._last + 1:
            self._miss(self._last + 1, row.sequence - 1)
            self._last_hash = None
        self._last = row.sequence
        if row_hash(row) != row.hash:
            self._wrong.append(row)
            self._last_hash = None
            return
        if self._last_hash not in (None, row.previous):
            before = row.sequence - 1
            self._add("changed", before, f"row {row.sequence} names another hash than row {before} has")
        self._last_hash = row.hash

    def end(self) -> None:
        if self._head is None:
            if self.rows:
                self._add("head", self._last, "there are rows, and no head")
        elif self._last < self._head.sequence:
            self._miss(self._last + 1, self._head.sequence)
        elif self._last > self._head.sequence:
            self._add("head", self._head.sequence, f"there are rows after it, up to {self._last}")
        elif self._last_hash not in (None, self._head.hash):
            self._add("head", self._last, f"it has another hash than row {self._last}")

    def misplaced(self) -> list[AuditProblem]:
        """What is wrong with the rows whose hash is: some were only moved to another place."""
        places = [row.sequence for row in self._wrong[:_PLACES]]
        found = []
        for row in self._wrong[:MAX_PROBLEMS]:
            for place in (row.sequence - 1, row.sequence + 1, *places):
                if row_hash(replace(row, sequence=place)) == row.hash:
                    message = f"row {row.sequence} was appended as row {place}"
                    found.append(AuditProblem("reordered", row.sequence, message))
                    break
            else:
                message = f"row {row.sequence} does not have the hash of what it says"
                found.append(AuditProblem("changed", row.sequence, message))
        return found

    def _miss(self, first: int, last: int) -> None:
        what = f"row {first} is" if first == last else f"rows {first} to {last} are"
        self._add("missing", first, f"{what} missing")

    def _add(self, kind: AuditFault, sequence: int, message: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(AuditProblem(kind, sequence, message))
