"""Run by test_turns.py: a process that looks after a store whenever a line comes, until input ends.

Each line on standard input makes it ask for the turn; it answers with what it did, `collected` or `waits`.
With the argument `apart` it asks nobody.

    python -m tests.prompts_store.upkeep.upkeep_child FOLDER [apart]
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from tests.faults.store_kill_child import opened

INTERVAL_SECONDS = 3600.0


def main() -> None:
    folder, *how = sys.argv[1:]
    with closing(opened(Path(folder))) as store:
        sys.stdout.write("open\n")
        sys.stdout.flush()
        for _ in sys.stdin:
            wait, turn = store.claim_upkeep(INTERVAL_SECONDS)
            if how == ["apart"] or not wait:
                store.collect(grace_seconds=0)
                store.end_upkeep(turn, INTERVAL_SECONDS)
                sys.stdout.write("collected\n")
            else:
                sys.stdout.write("waits\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
