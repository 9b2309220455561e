"""The order of system calls of one publish, as the kernel saw it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_PUBLISHER = """
import sys
from pathlib import Path
from prompts_store import PromptStore
from prompts_store.testing import example_prompt
store = PromptStore.open(Path(sys.argv[1]))
store.publish("acme", "warm", *example_prompt(1))
sys.stderr.write("begin\\n"); sys.stderr.flush()
store.publish("acme", "sst2", *example_prompt(2, length=20, width=512))
sys.stderr.write("end\\n"); sys.stderr.flush()
"""
_CALLS = "trace=write,pwrite64,fsync,fdatasync,rename,renameat,renameat2"


def _trace(folder: Path) -> list[str]:
    """The system calls of the second publish, in order, as `name path`."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log = folder / "strace.txt"
    command = [
        "strace",
        "-f",
        "-y",
        "-s",
        "16",
        "-e",
        _CALLS,
        "-o",
        str(log),
        sys.executable,
        "-c",
        _PUBLISHER,
    ]
    done = subprocess.run([*command, str(folder / "data")], capture_output=True, text=True, timeout=1200)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("this system does not let strace trace")
    assert done.returncode == 0, done.stderr
    calls: list[str] = []
    for line in log.read_text().splitlines():
        match = re.match(r"\d+ +(\w+)\((.*)\) += (-?\d+)", line)
        if match is None or int(match[3]) < 0:
            continue
        if '"begin' in line:
            calls.clear()
        if '"end' in line:
            break
        # A rename's target is its last path; the others' only one is the descriptor's.
        paths = re.findall(r'[<"](/[^">]*)[">]', match[2])
        if paths and "/data" in paths[-1]:
            calls.append(f"{match[1]} {paths[-1]}")
    return calls


def _first(calls: list[str], pattern: str) -> int:
    found = [i for i, call in enumerate(calls) if re.search(pattern, call)]
    assert found, f"no {pattern} in {calls}"
    return found[0]


def test_blob_sync_rename_folder_sync_then_commit(tmp_path: Path) -> None:
    calls = _trace(tmp_path)
    written = _first(calls, r"^write .*/incoming/\d+-")
    synced = _first(calls, r"^fsync .*/incoming/\d+-")
    renamed = _first(calls, r"^rename\w* .*/blobs/[0-9a-f]{2}/[0-9a-f]{64}\.npy$")
    folder = max(i for i, call in enumerate(calls) if re.search(r"^fsync .*/blobs/[0-9a-f]{2}$", call))
    row = _first(calls, r"^pwrite64 .*chorus\.db-wal$")
    commit = max(i for i, call in enumerate(calls) if re.search(r"^f(data)?sync .*chorus\.db-wal$", call))
    assert written < synced < renamed < folder < row < commit, calls
    # Nothing of the blob is touched after its row, and the row's last byte is on the disk before the answer.
    assert not [call for call in calls[row:] if "/blobs/" in call]
    assert _last_row(calls) < commit


def _last_row(calls: list[str]) -> int:
    return max(i for i, call in enumerate(calls) if call.startswith("pwrite64") and call.endswith("-wal"))
