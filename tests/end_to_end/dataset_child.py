"""Answers files with Ray Data, or as one of its actors does, in a process of its own that may be killed.

The arguments are JSON, those of `answer_files`, and then `actor` for an actor without Ray, which is stuck
before its third file is stored and waits to be killed. Writes what came of each file, as JSON.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from chorus_server.cluster.dataset import FileAnswers, answer_files
from chorus_server.cluster.files import FileSets, answered_files
from chorus_server.cluster.questions import RowQuestion
from chorus_server.settings import load_settings


def with_ray(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    import ray

    # Never another Ray of this machine, nor what is left of one that was killed.
    ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    return [asdict(file) for file in answer_files(**arguments)]


def as_actor(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    settings = load_settings(arguments["settings"], listening=False)
    question = RowQuestion(*(arguments[name] for name in ("endpoint", "body", "input")))
    found, target = FileSets(arguments["source"], arguments["target"]).begin(settings, question)
    todo = sorted(found.keys() - set(answered_files(found, target)))
    actor, numbers = FileAnswers(**arguments, run=0), itertools.count(1)
    put_file = actor._target.put_file

    def put_two(key: str, path: Path) -> None:
        if next(numbers) > 2:
            threading.Event().wait()
        put_file(key, path)

    actor._target.put_file = put_two  # type: ignore[method-assign]
    return [file for table in actor(pa.table({"path": todo})) for file in table.to_pylist()]


if __name__ == "__main__":
    run = as_actor if sys.argv[2:] == ["actor"] else with_ray
    json.dump(run(json.loads(sys.argv[1])), sys.stdout)
