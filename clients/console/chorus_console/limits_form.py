"""Limits as a form: a field for each number, empty for no limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.exceptions import HTTPException

from chorus.cli.limit_options import limits_of, pairs_of

MONTHLY = ("soft", "hard")
_AMOUNTS = ("requests", "tokens", "work_units")
_TENANTS_AMOUNTS = (*_AMOUNTS, "training_steps")
_SPANS = ("per_minute", "in_flight", "queued")
COLUMNS = ("a minute", "at one time", "waiting", "a month: warn at", "a month: at most")
STORED = ("prompts", "prompt_bytes", "file_bytes", "unfinished_jobs")
_FIELD = "limit."
_MOST = 2**53


def grid(of_tenant: bool) -> list[tuple[str, list[tuple[str, str]]]]:
    """The rows of the form, each with its name and, for each of `COLUMNS`, that and the limit's path; no path
    where there is no such limit."""
    found = []
    for amount in _TENANTS_AMOUNTS if of_tenant else _AMOUNTS:
        paths = [f"{span}.{amount}" if amount in _AMOUNTS else "" for span in _SPANS]
        paths += [f"per_month.{amount}.{kind}" for kind in MONTHLY]
        found.append((amount.replace("_", " "), list(zip(COLUMNS, paths, strict=True))))
    return found


def values_of(limits: Mapping[str, Any]) -> dict[str, str]:
    """The number of each limit by its path, as the form has it."""
    return dict(pair.split("=", 1) for pair in pairs_of(limits))


def given(form: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The limits that a form or an address has, by path."""
    return {
        name.removeprefix(_FIELD): value.strip().replace(",", "")
        for name, value in form
        if name.startswith(_FIELD) and value.strip()
    }


def document(values: Mapping[str, str]) -> dict[str, Any]:
    """The limits as the API takes them; empty for no limits.

    Raises:
        HTTPException: 400, one is no whole number.
    """
    for path, value in values.items():
        whole_number(path.replace("_", " ").replace(".", ", "), value, _MOST)
    return limits_of(f"{path}={value}" for path, value in values.items()) or {}


def whole_number(name: str, text: str, most: int, least: int = 0) -> int:
    """The number that somebody wrote. Raises HTTPException 400 if it is none from `least` to `most`."""
    if text.isascii() and text.isdigit() and len(text) < 17 and least <= int(text) <= most:
        return int(text)
    raise HTTPException(400, f"{name}: write a whole number from {least} to {most:,}.")
