"""The list of parity tests that may skip is short, real and enforced."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CONTROL = "import pytest\n\ndef test_quiet():\n    pytest.skip('no reason')\n\ndef test_loud():\n    pass\n"


def _listed() -> list[str]:
    text = (HERE / "conftest.py").read_text().split("MAY_SKIP = ")[1].split('"""')[0]
    return re.findall(r'"(test_\w+\.py::test_\w+)"', text)


def test_at_most_one_parity_test_may_skip_and_it_exists() -> None:
    listed = _listed()
    assert len(listed) == 1
    for name in listed:
        file, function = name.split("::")
        assert f"def {function}(" in (HERE / file).read_text()


def test_a_skip_that_is_not_listed_fails(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "parity"
    folder.mkdir(parents=True)
    shutil.copy(HERE / "conftest.py", folder)
    (folder / "test_control.py").write_text(CONTROL)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(folder),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 1
    assert "1 failed, 1 passed" in run.stdout
    assert "not on tests/parity's list" in run.stdout
