"""The options that every command has, and the client made from them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from chorus.client import AsyncClient, Client
from chorus.config import DEFAULT_URL, KEY_FILE_VARIABLE, TOTAL_SECONDS, URL_VARIABLE, read_key_file
from chorus.load.connections import SpreadTransport

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Session:
    """Which server to call, with which key, and how to print.

    Attributes:
        as_json: print one JSON document on standard output instead of tables.
    """

    url: str = DEFAULT_URL
    key_file: Path | None = None
    timeout_seconds: float = 120.0
    total_seconds: float = TOTAL_SECONDS
    as_json: bool = False

    def _key(self) -> str | None:
        return None if self.key_file is None else read_key_file(self.key_file)

    def client(self) -> Client:
        """A client; the caller closes it."""
        return Client(
            self.url, self._key(), timeout_seconds=self.timeout_seconds, total_seconds=self.total_seconds
        )

    def async_client(self, *, retries: int, max_connections: int) -> AsyncClient:
        """A client for many requests at once; the caller closes it."""
        return AsyncClient(
            self.url,
            self._key(),
            timeout_seconds=self.timeout_seconds,
            total_seconds=self.total_seconds,
            retries=retries,
            transport=SpreadTransport(max_connections),
        )


def session_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options themselves. They may stand before the command or after it; the later one wins."""
    key_help = f"File that contains the API key. [env: {KEY_FILE_VARIABLE}; the key itself: CHORUS_API_KEY]"
    for option in (
        click.option("--json", "as_json", is_flag=True, default=None, help="Print JSON."),
        click.option(
            "--timeout-seconds",
            type=click.FloatRange(min=0, min_open=True),
            help="Limit for each wait on the network. [default: 120]",
        ),
        click.option(
            "--total-seconds",
            type=click.FloatRange(min=0, min_open=True),
            help="Limit for a whole call, including its retries and its answer. [default: "
            f"{TOTAL_SECONDS:g}]",
        ),
        click.option("--key-file", type=click.Path(path_type=Path, dir_okay=False), help=key_help),
        click.option("--url", help=f"URL of the server. [env: {URL_VARIABLE}; default: {DEFAULT_URL}]"),
    ):
        command = option(command)
    return command


def with_session(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command its `Session` as the first argument, made from all options and the environment."""

    @session_options
    @click.pass_context
    def wrapped(context: click.Context, /, *args: Any, **kwargs: Any) -> R:
        names = ("url", "key_file", "timeout_seconds", "total_seconds", "as_json")
        given = {name: kwargs.pop(name) for name in names}
        return command(merge(context.obj, given), *args, **kwargs)

    return functools.update_wrapper(wrapped, command)


def merge(session: Session | None, given: dict[str, Any]) -> Session:
    """`session`, with the given options in place of its own."""
    return replace(
        session or Session(), **{name: value for name, value in given.items() if value is not None}
    )
