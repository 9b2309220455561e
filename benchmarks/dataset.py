"""Short rows answered by Ray Data with the base that ships, Parquet in and out on S3, beside one server.

    python benchmarks/dataset.py                  100,000 rows in 20 files; then 20,000 as a batch of a server
    python benchmarks/dataset.py --rows 2000 --files 4 --server-rows 2000      a trial

One actor and then one server have the machine alone, with the same settings (the defaults), store and cache
of programs, which is filled first. The S3 server (SeaweedFS) has this machine's cores too. The actor's rate
is that of all files after the first one, by the times at which they appeared, so it has the reading, writing
and the ends of files in it, and no start. The server's is that of a batch from its first line to its last.
Prints JSON, with the machine's load.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import pyarrow as pa
import pyarrow.parquet as pq
from machine import machine

from chorus_server.cluster.dataset import answer_files
from chorus_server.cluster.files import bucket_of
from chorus_server.settings import load_settings
from prompts_store.jobs.records import OVER
from prompts_store.store import PromptStore
from tests.end_to_end.served import Served
from tests.pip_environment import RAY, packages_of, pip_environment
from tests.s3_server import REQUIREMENTS, S3Server

ROOT = Path(__file__).parents[1]
TASK = "sentiment"
BEGIN = ("a joyless mess", "a lovely film", "an odd little story", "two dull hours", "the best of its year")
GOES_ON = ("with a fine cast", "that nobody asked for", "about a dog", "and far too long", "for the family")


def text_of(row: int) -> str:
    """Four to twelve words."""
    chance = random.Random(row)
    return " ".join([chance.choice(BEGIN), *chance.sample(GOES_ON, chance.randrange(3)), f"({row})"])


def with_ray() -> None:
    """Begin this script again where Ray cannot be imported, with a path that has it."""
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        path = os.pathsep.join(map(str, (ROOT, ROOT / "scripts", packages_of(RAY))))
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONPATH": path})


def by_ray(server: S3Server, settings: dict[str, Any], rows: int, files: int, folder: Path) -> dict[str, Any]:
    """Rows a second through Ray Data, and how long everything took."""
    import ray

    place = server.address()
    source, target = (server.url(place).replace("?", f"/{where}?") for where in ("in", "out"))
    given = settings | {"blob_credentials_file": str(place.credentials_file)}
    bucket = bucket_of(load_settings(given, listening=False), source, "source")
    size = rows // files
    for number in range(files):
        texts = [text_of(row) for row in range(number * size, (number + 1) * size)]
        pq.write_table(pa.table({"text": texts}), folder / "rows.parquet")
        bucket.put_file(f"part-{number:03}.parquet", folder / "rows.parquet")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    started = time.perf_counter()
    answered = answer_files(
        source, target, endpoint="/v1/classify", body={"task": TASK}, input="text", settings=given
    )
    seconds = time.perf_counter() - started
    ray.shutdown()
    failed = [file for file in answered if file.error or file.failed]
    if failed:
        raise RuntimeError(f"files or rows failed: {failed[:3]}")
    there = bucket_of(load_settings(given, listening=False), target, "target").entries("")
    times = sorted(at.timestamp() for path, at in there if path.endswith(".parquet"))
    return {
        "rows_a_second": round(size * (files - 1) / (times[-1] - times[0]), 1),
        "seconds_with_start": round(seconds, 1),
    }


def by_server(settings: dict[str, Any], rows: int) -> dict[str, Any]:
    """Rows a second of a batch of one server."""
    given = {name: value for name, value in settings.items() if name != "data_dir"}
    lines = "".join(
        json.dumps(
            {
                "custom_id": str(row),
                "method": "POST",
                "url": "/v1/classify",
                "body": {"task": TASK, "input": text_of(row)},
            }
        )
        + "\n"
        for row in range(rows)
    )
    with Served(Path(settings["data_dir"]), matrix_dtype="auto", **given) as server:
        server.wait_ready()
        answer = server.http.post("/v1/files", files={"file": ("lines.jsonl", lines.encode())})
        started = time.perf_counter()
        body = {"file": answer.json()["id"], "endpoint": "/v1/classify"}
        job = server.post("/v1/batches", body)["id"]
        store, pause = PromptStore.open(server.data_dir), threading.Event()
        while store.get_job("default", job).status not in OVER:
            pause.wait(0.2)
        seconds, ended = time.perf_counter() - started, store.get_job("default", job)
        store.close()
    if ended.status != "succeeded" or ended.result["failed"]:
        raise RuntimeError(f"the batch {ended.status}: {ended.error}")
    return {"rows": rows, "rows_a_second": round(rows / seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--server-rows", type=int, default=20_000)
    given = parser.parse_args()
    with_ray()
    os.environ |= {"JAX_PLATFORMS": "cpu", "RAY_USAGE_STATS_ENABLED": "0"}
    server = S3Server(pip_environment(REQUIREMENTS))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            settings = {"data_dir": str(folder / "data")}
            with Served(folder / "data", matrix_dtype="auto") as first:  # fills the cache of programs
                first.wait_ready()
            found = {
                "machine": machine(),
                "load_average": [round(each, 1) for each in os.getloadavg()],
                "rows": given.rows,
                "files": given.files,
                "ray_data": by_ray(server, settings, given.rows, given.files, folder),
                "batch_of_one_server": by_server(settings, given.server_rows),
            }
    finally:
        server.stop()
    ratio = found["ray_data"]["rows_a_second"] / found["batch_of_one_server"]["rows_a_second"]
    print(json.dumps({**found, "ratio": round(ratio, 2)}, indent=1))


if __name__ == "__main__":
    main()
