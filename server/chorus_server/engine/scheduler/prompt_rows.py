"""The rows of the device's prompt table: free list, reference counts, least-recently-used eviction."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from chorus_server.engine.plans import RowLoad
from chorus_server.engine.requests import PromptHandle


@dataclass(slots=True)
class _Resident:
    rows: tuple[int, ...]
    users: int = 0
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Acquired:
    """The rows that a request reads. `loads` must go into its plan; the other rows are already loaded."""

    digests: tuple[str, ...]
    loads: tuple[RowLoad, ...]
    evictions: int

    @property
    def hits(self) -> int:
        return len(self.digests) - len(self.loads)


@dataclass(slots=True)
class PromptRows:
    """Rows `0 .. capacity - 1`. A prompt's rows need not be next to each other.

    A prompt counts as resident from the moment its load is planned, because plans run in the order in which
    they are dispatched. It may be evicted if no step in flight reads it and it is not pinned.
    """

    capacity: int
    _free: list[int] = field(init=False)
    _resident: OrderedDict[str, _Resident] = field(init=False, default_factory=OrderedDict)
    _pins: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._free = list(range(self.capacity - 1, -1, -1))

    def __contains__(self, digest: str) -> bool:
        return digest in self._resident

    def rows_of(self, digest: str) -> tuple[int, ...]:
        """Device rows of a resident prompt, first to last."""
        return self._resident[digest].rows

    @property
    def resident(self) -> int:
        return self.capacity - len(self._free)

    @property
    def prompts(self) -> int:
        """How many prompts are resident."""
        return len(self._resident)

    @property
    def in_use(self) -> int:
        return sum(len(entry.rows) for entry in self._resident.values() if entry.users)

    @property
    def pinned(self) -> int:
        return sum(self._pins.values())

    def pin(self, prompt: PromptHandle) -> None:
        """Keep the prompt once it is resident."""
        self._pins[prompt.digest] = prompt.length
        if prompt.digest in self._resident:
            self._resident[prompt.digest].pinned = True

    def unpin(self, digest: str) -> None:
        """Allow the prompt to be evicted again."""
        self._pins.pop(digest, None)
        if digest in self._resident:
            self._resident[digest].pinned = False

    def acquire(self, prompts: Sequence[PromptHandle]) -> Acquired | None:
        """Rows for distinct prompts, all or none; None if steps in flight hold too many. Each call pairs with
        a `release`."""
        # A dict, not a set, because the order of use must not depend on the process's string hashes.
        wanted = dict.fromkeys(prompt.digest for prompt in prompts)
        missing = [prompt for prompt in prompts if prompt.digest not in self._resident]
        victims = self._victims(sum(prompt.length for prompt in missing) - len(self._free), wanted)
        if victims is None:
            return None
        for digest in victims:
            self._drop(digest)
        loads = tuple(self._place(prompt) for prompt in missing)
        for digest in wanted:
            self._resident[digest].users += 1
            self._resident.move_to_end(digest)
        return Acquired(tuple(prompt.digest for prompt in prompts), loads, len(victims))

    def release(self, digests: Iterable[str]) -> None:
        """Release prompts after the step that read them was collected."""
        for digest in digests:
            self._resident[digest].users -= 1

    def check_idle(self) -> None:
        """Raises AssertionError if rows are lost, shared or still in use."""
        rows = [row for entry in self._resident.values() for row in entry.rows]
        users = {digest: entry.users for digest, entry in self._resident.items() if entry.users}
        if users:
            raise AssertionError(f"prompt rows are still in use: {users}")
        if sorted(rows + self._free) != list(range(self.capacity)):
            raise AssertionError("prompt rows were lost or given out twice")

    def _victims(self, needed: int, wanted: Container[str]) -> list[str] | None:
        victims: list[str] = []
        if needed <= 0:
            return victims
        for digest, entry in self._resident.items():
            if entry.users or entry.pinned or digest in wanted:
                continue
            victims.append(digest)
            needed -= len(entry.rows)
            if needed <= 0:
                return victims
        return None

    def _drop(self, digest: str) -> None:
        self._free.extend(self._resident.pop(digest).rows)

    def _place(self, prompt: PromptHandle) -> RowLoad:
        rows = tuple(self._free.pop() for _ in range(prompt.length))
        self._resident[prompt.digest] = _Resident(rows, pinned=prompt.digest in self._pins)
        return RowLoad(prompt.digest, rows)
