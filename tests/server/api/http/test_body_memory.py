"""A body of the largest size raises the server's memory by no more than four times that size."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.places import IMPORTS, python_module


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux tells a process its peak anew"
)
def test_a_body_raises_memory_by_four_times_the_largest_body_at_most() -> None:
    child = subprocess.run(
        python_module("tests.server.api.http.body_memory_child"),
        env=os.environ
        | IMPORTS
        | {"MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed is given back, and hides nothing
        stdout=subprocess.PIPE,
        timeout=1200,
        check=True,
    )
    rises = json.loads(child.stdout)
    limit, control = rises.pop("limit"), rises.pop("control")
    assert {name: rise / limit for name, rise in rises.items() if rise > 4 * limit} == {}
    assert control > 4 * limit
