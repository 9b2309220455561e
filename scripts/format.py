"""Formats the code in place and applies the safe lint fixes."""

from __future__ import annotations

import subprocess
import sys

from bootstrap import ROOT, environment

if __name__ == "__main__":
    ruff = environment("test").parent / "ruff"
    fixed = subprocess.run([ruff, "check", "--fix", "--quiet", "."], cwd=ROOT).returncode
    sys.exit(subprocess.run([ruff, "format", "."], cwd=ROOT).returncode or fixed)
