"""Where things are, and how a test starts one of its own modules as another process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
SHARED = Path(os.environ.get("CHORUS_SHARED", ROOT.parent / "shared"))
"""Large files that are not in the repository: tests that need them skip where they are absent."""

IMPORTS = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "scripts")))}
"""The environment in which `python_module` finds the tests, and what they import."""


def python_module(module: ModuleType | str) -> list[str]:
    """The command that runs a module of the tests as a program; its environment needs `IMPORTS`."""
    return [sys.executable, "-m", module if isinstance(module, str) else module.__name__]
