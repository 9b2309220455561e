"""A real server that has an operator's key."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenants_cli import bootstrap
from tests.server.api.api_harness import ApiServer


class Operated(ApiServer):
    """A server whose operator made a key as operators do.

    Attributes:
        key: the operator's.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        made = CliRunner().invoke(bootstrap, ["--data-dir", str(folder)])
        assert made.exit_code == 0, made.output
        self.key = made.stdout.strip()
        super().__init__(folder, vocabulary)
