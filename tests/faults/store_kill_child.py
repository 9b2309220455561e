"""Run by test_store_kill.py: forks children that write to a store as fast as they can, to be killed.

Each line on standard input, `FOLDER ROUND KIND`, makes a child (see `put_elsewhere`); its process id is
answered on a line `child ID`, each version that was acknowledged to it on a line `ack TASK NUMBER SEED`, each
data file on one `ack ID BYTES SEED`, its end by `dead`.
"""

import json
import os
import sys
import threading
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from prompts_store import PromptStore
from prompts_store.blobs import BlobAddress, LocalBlobs
from prompts_store.errors import ConflictError, NotFoundError
from prompts_store.testing import example_prompt
from tether import tie_to

WRITERS = 3
_ELSEWHERE = "elsewhere.json"


class RowFirst(LocalBlobs):
    """The control: blobs are stored only after their row is committed."""

    late = threading.local()

    def put(self, digest: str, content: bytes, *, now: datetime) -> None:
        self.late.blob = (digest, content, now)

    def has(self, digest: str) -> bool:
        return True

    def flush(self) -> None:
        digest, content, now = self.late.blob
        super().put(digest, content, now=now)


def opened(folder: Path) -> PromptStore:
    """The store of a folder, whose blobs, and rows, may be elsewhere."""
    if not (folder / _ELSEWHERE).exists():
        return PromptStore.open(folder)
    url, place = json.loads((folder / _ELSEWHERE).read_text())
    address = BlobAddress(**place | {"credentials_file": Path(place["credentials_file"])})
    return PromptStore.open(folder, database_url=url, blobs=address)


def put_elsewhere(folder: Path, address: BlobAddress, url: str | None) -> None:
    """Let a folder's store have its blobs in a bucket, and perhaps its rows in PostgreSQL."""
    (folder / _ELSEWHERE).write_text(json.dumps([url, asdict(address)], default=str))


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # one write, so that a line is whole or not there


def publish_for_ever(store: PromptStore, blobs: RowFirst | None, first_seed: int, thread: int) -> None:
    for seed in range(first_seed, first_seed + 10**6):
        # Two of three writers share a task; every third content is already in another task.
        task = f"task{thread % 2}"
        number = store.publish("acme", task, *example_prompt(seed - seed % 3, template=f"{seed} {{text}}"))
        if blobs is not None:
            blobs.flush()
        say(f"ack {task} {number.version.number} {seed}")


def disturb_for_ever(store: PromptStore, seed: int) -> None:
    """Aliases move, versions go, and the collector runs without any grace."""
    while True:
        seed += 1
        number = store.publish("acme", "scratch", *example_prompt(seed)).version.number
        store.set_alias("acme", "scratch", "live", number)
        try:
            store.rollback("acme", "scratch")
            store.delete_version("acme", "scratch", number)
        except (ConflictError, NotFoundError):
            store.delete_task("acme", "scratch")
        store.collect(grace_seconds=0)


def rows_of(seed: int) -> bytes:
    """The content of a data file: every other seed has the same."""
    return f"row {seed - seed % 2}\n".encode() * (1 + seed % 7 // 2 * 10_000)


def upload_for_ever(store: PromptStore, first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 10**6):
        content = rows_of(seed)
        with store.write_file("acme", f"{seed}.csv", max_bytes=len(content)) as writer:
            for start in range(0, len(content), 65_536):
                writer.write(content[start : start + 65_536])
            file = writer.commit()
        say(f"ack {file.id} {file.size_bytes} {seed}")


def disturb_files_for_ever(store: PromptStore, seed: int) -> None:
    """Jobs learn from files and are run; files go again; the collector runs without any grace."""
    while True:
        seed += 1
        content = rows_of(seed)
        with store.write_file("scratch", "rows.csv", max_bytes=len(content)) as writer:
            writer.write(content)
            file = writer.commit()
        store.create_job(
            "scratch", "tuning", {"base_fingerprint": "base"}, files={"data.train.file": file.id}
        )
        while (claimed := store.claim_job("tuning", "runner", 0.001, "base")) is not None:
            store.append_events(claimed[1], [("step", {"seed": seed})])
            store.finish_job(claimed[1], "succeeded")
        store.delete_file("scratch", file.id)
        store.collect(grace_seconds=0)


def child(launcher: int, folder: Path, number: int, kind: str) -> None:
    tie_to(launcher)  # it writes for ever
    store = opened(folder)
    late = None
    if kind == "row_first":
        late = RowFirst(folder / "blobs")
        store = PromptStore(store._database, late)
    first = number * 10**7
    if kind == "files":
        for thread in range(WRITERS):
            seed = first + thread * 10**6
            threading.Thread(target=upload_for_ever, args=(store, seed)).start()
        threading.Thread(target=disturb_files_for_ever, args=(store, first)).start()
        return
    for thread in range(WRITERS):
        seed = first + thread * 10**6
        threading.Thread(target=publish_for_ever, args=(store, late, seed, thread)).start()
    if late is None:
        threading.Thread(target=disturb_for_ever, args=(store, first + 9 * 10**6)).start()


def main() -> None:
    for line in sys.stdin:
        folder, number, kind = line.split()
        launcher, process = os.getpid(), os.fork()
        if not process:
            child(launcher, Path(folder), int(number), kind)
            return
        say(f"child {process}")
        os.waitpid(process, 0)
        say("dead")


if __name__ == "__main__":
    main()
