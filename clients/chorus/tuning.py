"""`client.files` and `client.tuning`, blocking and awaited."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

from chorus.followed import AsyncFollowedJobs, FollowedJobs
from chorus.methods import AsyncOwner, SyncOwner
from chorus.routes import files
from chorus.routes.files import FileMethods
from chorus.routes.tuning import TuningMethods, events
from chorus.saving import whole_file
from chorus.types import DataFile, Job


class Files(FileMethods, SyncOwner):
    """`client.files`: training data, and what jobs made."""

    def save(self, file: str | DataFile, path: str | os.PathLike[str]) -> Path:
        """Write a file of the server to the disk, whole or not at all, however large it is.

        Raises:
            InvalidArgumentError: the folder does not exist or cannot be written.
        """
        with whole_file(Path(path)) as written:
            self._transport.download(files.content(file).request, written)
        return Path(path)

    def pieces(self, file: str | DataFile) -> Generator[bytes, None, None]:
        """The bytes of a file in pieces, as they come, however many they are. Close it if you do not read all
        of them."""
        return self._transport.pieces(files.content(file).request)


class AsyncFiles(FileMethods, AsyncOwner):
    """`client.files`: training data, and what jobs made."""

    async def save(self, file: str | DataFile, path: str | os.PathLike[str]) -> Path:
        """Write a file of the server to the disk, whole or not at all, however large it is.

        Raises:
            InvalidArgumentError: the folder does not exist or cannot be written.
        """
        with whole_file(Path(path)) as written:
            await self._transport.download(files.content(file).request, written)
        return Path(path)

    def pieces(self, file: str | DataFile) -> AsyncGenerator[bytes, None]:
        """The bytes of a file in pieces, as they come, however many they are. Close it if you do not read all
        of them."""
        return self._transport.pieces(files.content(file).request)


class Tuning(TuningMethods, FollowedJobs[Job]):
    """`client.tuning`: jobs that make new prompts."""

    _follow = staticmethod(events)


class AsyncTuning(TuningMethods, AsyncFollowedJobs[Job]):
    """`client.tuning`: jobs that make new prompts."""

    _follow = staticmethod(events)
