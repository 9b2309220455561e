"""`--limit` and `--retention` NAME=NUMBER, each repeated: the documents that these names and numbers make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_FORMS = {
    "limit": "per_minute.requests=600, per_month.tokens.hard=1000000 or stored.prompts=100",
    "retention": "usage_days=90 or audit_days=365",
}


def limit_option(help: str) -> Callable[[F], F]:
    """An option `limits`, whose value goes through `limits_of`."""
    return click.option("--limit", "limits", multiple=True, metavar="NAME=NUMBER", help=help)


def retention_option(help: str) -> Callable[[F], F]:
    """An option `retention`, whose value goes through `retention_of`."""
    return click.option("--retention", multiple=True, metavar="NAME=DAYS", help=help)


def limits_of(pairs: Iterable[str], *, none: bool = False) -> dict[str, Any] | None:
    """The document of limits; None if nothing was given.

    Args:
        none: whether `--no-limits` was given.

    Raises:
        UsageError: a pair is no NAME=NUMBER, or they do not go together.
    """
    found = _document("limit", pairs)
    if none and found:
        raise click.UsageError("Give either --limit or --no-limits, not both.")
    return found if found or none else None


def retention_of(pairs: Iterable[str], *, default: bool = False) -> dict[str, Any] | None:
    """The same of `--retention`, beside `--default-retention`."""
    found = _document("retention", pairs)
    if default and found:
        raise click.UsageError("Give either --retention or --default-retention, not both.")
    return found if found or default else None


def pairs_of(document: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The document as it would be given; what is null is left out."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from pairs_of(value, f"{path}{name}.")
        elif value is not None:
            yield f"{path}{name}={value}"


def _document(option: str, pairs: Iterable[str]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for pair in pairs:
        path, _, number = pair.partition("=")
        *parts, last = path.strip().split(".")
        place = document
        for part in parts:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise click.UsageError(f"--{option} {path} is beside {part}, which is a number already.")
        try:
            amount = int(number)
        except ValueError:
            raise click.UsageError(
                f"--{option} {pair!r} is not NAME=NUMBER: write {_FORMS[option]}."
            ) from None
        if last in place:
            raise click.UsageError(f"--{option} {path} is given twice.")
        place[last] = amount
    return document
