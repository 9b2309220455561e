"""The whole monitoring chain for real: a server under load, a real Prometheus, every query and rule."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compiling import QUICKLY
from tests.places import ROOT
from tether import tethered


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus (Debian: prometheus)")
def test_dashboard_queries_and_rules_against_a_real_prometheus(tmp_path: Path, compiled_folder: Path) -> None:
    command = [sys.executable, ROOT / "deploy" / "check_monitoring.py", "--toy", tmp_path / "toy"]
    # What metrics are called does not depend on how well programs are compiled.
    quick = {**QUICKLY, "CHORUS_MATRIX_DTYPE": "f32", "CHORUS_COMPILE_CACHE_DIR": str(compiled_folder)}
    ran = subprocess.run(
        tethered(command), env={**os.environ, **quick}, capture_output=True, text=True, timeout=1700
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
