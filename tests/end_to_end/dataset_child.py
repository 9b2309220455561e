"""Answers files with Ray Data, in a process of its own that may be killed.

The argument is JSON: the arguments of `answer_files`. Writes what came of each file, as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import ray

from chorus_server.cluster.dataset import answer_files

if __name__ == "__main__":
    # Never another Ray of this machine, nor what is left of one that was killed.
    ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    json.dump([asdict(file) for file in answer_files(**json.loads(sys.argv[1]))], sys.stdout)
