"""Answers files with Ray Data, in a process of its own that may be killed.

The arguments are JSON: those of `answer_files`. Writes what came of each file, as JSON. With `--again`, a run
that takes every file for unanswered follows: the control.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import ray

from chorus_server.cluster.dataset import answer_files
from chorus_server.cluster.files import FileSets


def run(given: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps([asdict(file) for file in answer_files(**given)]) + "\n")
    sys.stdout.flush()


def main() -> None:
    given = json.loads(sys.argv[1])
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    run(given)
    if "--again" in sys.argv:
        begin = FileSets.begin

        def forgetful(*arguments: Any) -> tuple[list[str], list[str]]:
            todo, done = begin(*arguments)
            return [*todo, *done], []

        FileSets.begin = forgetful  # type: ignore[method-assign]
        run(given)


if __name__ == "__main__":
    main()
