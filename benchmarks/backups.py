"""How long a backup takes while servers write, and what of their writes is not in it.

    PYTHONPATH=. python benchmarks/backups.py                 about four minutes; writes a result
    PYTHONPATH=. python benchmarks/backups.py --prompts 100   a small trial

For SQLite with a folder, and for PostgreSQL with a bucket (both started here, on this machine), a store is
filled with prompts of 20 x 512 and a data file. Then, while another process publishes without a pause:

- a backup into an empty place of the same kind, and a second one an instant later, which copies what is new;
- a restore of the second, into an empty store.

*Lost* is what the other process was acknowledged before the backup ended and the restored store does not
have; *behind* is how long before the backup's end the newest one that it has was acknowledged. Whatever was
acknowledged before that one must be there, or this fails. Between two backups more is lost: all since the one
before.
Writes benchmarks/results/DATE-MACHINE-backups.json, unless --prompts is given.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from machine import machine

from prompts_store.blobs import BlobAddress
from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest
from prompts_store.store import PromptStore
from prompts_store.testing import example_prompt
from tests.pip_environment import pip_environment
from tests.postgres_server import PostgresServer, binaries
from tests.s3_server import REQUIREMENTS, S3Server

ROOT = Path(__file__).parents[1]
PROMPTS, LENGTH, WIDTH, FILE_BYTES = 2000, 20, 512, 64 << 20
Open = Any


def publish(store: PromptStore, seed: int) -> int:
    """The number of a new version with values of its own."""
    values = np.random.default_rng(seed).normal(size=(LENGTH, WIDTH)).astype(np.float32)
    _, example = example_prompt(1, template=f"{seed} {{text}}")
    manifest: PromptManifest = replace(
        example, digest=prompt_digest(values), length=LENGTH, width=WIDTH, template=f"{seed} {{text}}"
    )
    return store.publish("acme", f"task{seed % 50}", values, manifest).version.number


def write_for_ever(open_store: Open, place: tuple[Any, ...], first: int, told: Any) -> None:
    """Publish, and tell what was acknowledged and when."""
    with closing(open_store(*place)) as store:
        for seed in range(first, first + 10**6):
            told.put((time.time(), f"task{seed % 50}", publish(store, seed)))


def opened(folder: Path, url: str | None, blobs: BlobAddress | None) -> PromptStore:
    return PromptStore.open(folder, database_url=url, blobs=blobs)


@contextmanager
def writing(place: tuple[Any, ...], first: int) -> Iterator[list[tuple[float, str, int]]]:
    """What another process is acknowledged, complete when the block is over."""
    acknowledged: list[tuple[float, str, int]] = []
    told = multiprocessing.get_context("spawn").Queue()
    child = multiprocessing.get_context("spawn").Process(
        target=write_for_ever, args=(opened, place, first, told), daemon=True
    )
    child.start()
    acknowledged.append(told.get())  # it is under way
    try:
        yield acknowledged
    finally:
        time.sleep(1)  # some are acknowledged after the backup, too
        while not told.empty():
            acknowledged.append(told.get())
        child.kill()
        child.join()


def timed(store: PromptStore, target: BlobAddress) -> tuple[float, float, Any]:
    """When a backup began and ended, and its report."""
    began = time.time()
    report = store.backup(target)
    return began, time.time(), report


def measured(place: tuple[Any, ...], empty: tuple[Any, ...], target: BlobAddress, prompts: int) -> Any:
    with closing(opened(*place)) as store:
        for seed in range(prompts):
            publish(store, seed)
        with store.write_file("acme", "rows.jsonl", max_bytes=FILE_BYTES) as writer:
            for part in range(FILE_BYTES >> 20):
                writer.write(np.random.default_rng(part).bytes(1 << 20))
            writer.commit()
        with writing(place, 10**6) as acknowledged:
            first = timed(store, target)
            second = timed(store, target)
        assert not first[2].damaged and not second[2].damaged
    began = time.time()
    with closing(opened(*empty)) as restored:
        restored.restore(target)
        restoring = time.time() - began
        assert restored.check().clean
        there = {
            (task, version.number)
            for task in {one[1] for one in acknowledged}
            for version in restored.list_versions("acme", task, limit=500).items
        }
    had = [at for at, *what in acknowledged if tuple(what) in there]
    lost = [at for at, *what in acknowledged if tuple(what) not in there and at <= second[1]]
    assert had and (not lost or min(lost) >= max(had)), "something before the backup's moment is missing"
    return {
        "prompts": prompts,
        "blob_bytes": prompts * LENGTH * WIDTH * 4,
        "file_bytes": FILE_BYTES,
        "first_seconds": round(first[1] - first[0], 2),
        "first_blobs": first[2].blobs,
        "second_seconds": round(second[1] - second[0], 2),
        "second_blobs": second[2].blobs,
        "rows": second[2].rows,
        "restore_seconds": round(restoring, 2),
        "published_a_second": round(len(acknowledged) / (acknowledged[-1][0] - acknowledged[0][0]), 1),
        "lost": len(lost),
        "behind_seconds": round(second[1] - max(had), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int)
    asked = parser.parse_args().prompts
    found: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "machine": machine()}
    programs = binaries()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed (Debian: apt install postgresql)")
    postgres, s3 = PostgresServer(programs), S3Server(pip_environment(REQUIREMENTS))
    try:
        with tempfile.TemporaryDirectory(prefix="chorus-backups-") as name:
            folder = Path(name)
            kinds = {
                "sqlite and a folder": (
                    (folder / "a", None, None),
                    (folder / "b", None, None),
                    BlobAddress((folder / "backup").as_uri()),
                ),
                "postgresql and a bucket": (
                    (folder / "c", postgres.create(), s3.address()),
                    (folder / "d", postgres.create(), s3.address()),
                    s3.address(),
                ),
            }
            for kind, (place, empty, target) in kinds.items():
                found[kind] = measured(place, empty, target, asked or PROMPTS)
                print(kind, json.dumps(found[kind]), flush=True)
    finally:
        s3.stop()
        postgres.stop()
    if asked is None:
        name = f"{found['date']}-{found['machine']['name']}-backups.json"
        (ROOT / "benchmarks" / "results" / name).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
