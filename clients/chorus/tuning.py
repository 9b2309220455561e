"""`client.files` and `client.tuning`, blocking and awaited."""

from __future__ import annotations

import os
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


class Tuning(TuningMethods, FollowedJobs[Job]):
    """`client.tuning`: jobs that make new prompts."""

    _follow = staticmethod(events)


class AsyncTuning(TuningMethods, AsyncFollowedJobs[Job]):
    """`client.tuning`: jobs that make new prompts."""

    _follow = staticmethod(events)
