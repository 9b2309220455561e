"""The server as it was before blobs could be in a bucket, as a process beside today's.

`tests/fixtures/store/code_of_c207f185.tar.xz` has what the wheel of that commit has, but for the base that
ships, so that it is there in a clone without history, too. It was made with:

    git archive --format=tar c207f185 server/chorus_server prompts_store clients/chorus | xz -9e
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

from tests.places import FIXTURES

COMMIT = "c207f185"
"""The last one before issue 19. Its newest migration is `REVISION`."""

REVISION = "0014"
ARCHIVE = FIXTURES / "store" / f"code_of_{COMMIT}.tar.xz"


def unpacked(folder: Path) -> Path:
    """The folder, with that code."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def command(code: Path, *arguments: str) -> list[str]:
    """`chorus serve` of that code, with this environment's libraries; or its Python with other arguments."""
    path = ":".join(map(str, (code, code / "clients", code / "server")))
    serve = ("-c", "from chorus_server.cli import serve; serve()")
    return ["env", f"PYTHONPATH={path}", sys.executable, "-P", *(arguments or serve)]
