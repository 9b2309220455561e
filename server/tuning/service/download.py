"""Fetches one file over HTTP: streamed to the disk, bounded in bytes and in time, redirects looked at."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin

import httpx

from server.errors import InvalidInputError
from server.tuning.service.config import ServiceConfig

_REDIRECTS = 5
_SILENCE_SECONDS = 30.0


class Download:
    """One download.

    Args:
        allowed: refuses a URL by raising; asked for each redirect too.
        interrupt: called for each piece; what it raises ends the download.
        field: dotted path of the source, for errors.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        config: ServiceConfig,
        allowed: Callable[[str], None],
        interrupt: Callable[[], None],
        field: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._allowed = allowed
        self._interrupt = interrupt
        self._field = field
        self._clock = clock

    def fetch(self, url: str, target: Path) -> None:
        """Fetch to `target`, which appears whole or not at all.

        Raises:
            InvalidInputError: `data_unreachable`, `file_too_large`, or what `allowed` raises.
            OSError: the disk is full or gone.
        """
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        deadline = self._clock() + self._config.download_seconds
        try:
            with httpx.Client(timeout=_SILENCE_SECONDS, follow_redirects=False) as client:
                self._follow(client, url, partial, deadline)
            partial.replace(target)
        except httpx.HTTPError as error:
            self._refuse(f"could not be fetched: {str(error)[:120] or type(error).__name__}")
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _follow(self, client: httpx.Client, url: str, partial: Path, deadline: float) -> None:
        for _ in range(_REDIRECTS + 1):
            self._allowed(url)
            # Plain bytes: what is bounded is what is kept.
            with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer:
                if answer.is_redirect and "location" in answer.headers:
                    url = urljoin(url, answer.headers["location"])
                    continue
                if answer.status_code != 200:
                    self._refuse(f"could not be fetched: the server answered {answer.status_code}")
                self._write(answer, partial, deadline)
                return
        self._refuse(f"could not be fetched: more than {_REDIRECTS} redirects")

    def _write(self, answer: httpx.Response, partial: Path, deadline: float) -> None:
        size = 0
        with partial.open("xb") as file:
            for piece in answer.iter_bytes(65_536):
                self._interrupt()
                size += len(piece)
                if size > self._config.max_file_bytes:
                    self._refuse(
                        f"is larger than {self._config.max_file_bytes} bytes, the most that is fetched",
                        "file_too_large",
                    )
                if self._clock() > deadline:
                    self._refuse(f"took longer than {self._config.download_seconds:g} seconds")
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def _refuse(self, message: str, code: str = "data_unreachable") -> None:
        raise InvalidInputError(f"{self._field} {message}", field=self._field, code=code)
