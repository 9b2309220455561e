"""What forms have in common: numbers, lines, and a file that is looked at before anything is queued."""

from __future__ import annotations

import math
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from chorus.types import DataFile
from chorus_console import data
from chorus_console.door import MOST_BYTES, Visit


@dataclass(frozen=True, slots=True)
class Looked:
    """A file, and what is in it.

    Attributes:
        file: its id on the server; None if something is wrong with it, and it was not uploaded.
    """

    name: str
    content: bytes
    found: data.Look
    file: str | None


async def count(visit: Visit, name: str) -> int | None:
    """A whole number of a form; None for an empty field."""
    text = (await visit.text(name)).replace(",", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise HTTPException(400, f"{name.replace('_', ' ')} is a whole number.")
    return int(text)


def number(name: str, text: str, such_as: str) -> float:
    """The number that somebody wrote. Raises HTTPException 400 if it is none, or none that JSON has."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise HTTPException(400, f"{name} is a number, such as {such_as}.")
    return found


async def lines(visit: Visit, name: str) -> list[str]:
    """The lines of a field that have something in them."""
    return [line.strip() for line in (await visit.text(name)).splitlines() if line.strip()]


async def pairs(visit: Visit, name: str, example: str) -> dict[str, str]:
    """Lines such as `0=negative`.

    Raises:
        HTTPException: 400, a line is none.
    """
    found = {}
    for line in await lines(visit, name):
        key, equals, value = line.partition("=")
        if not (key.strip() and equals and value.strip()):
            raise HTTPException(400, f"{line[:60]!r} is not as in {example}.")
        found[key.strip()] = value.strip()
    return found


async def dropped(visit: Visit, name: str = "file") -> tuple[str, bytes] | None:
    """The name and the bytes of a file in a form; None if there is none."""
    file = (await visit.form()).get(name)
    if not isinstance(file, UploadFile) or not file.filename:
        return None
    return file.filename, await file.read()


async def stored(visit: Visit) -> DataFile:
    """The file on the server that the field `file` names; see `stored_if_any`."""
    found = await stored_if_any(visit, "file")
    if found is None:
        raise HTTPException(400, "Choose a file first.")
    return found


async def stored_if_any(visit: Visit, field: str) -> DataFile | None:
    """The file on the server that a field names; None for an empty one. The text itself starts no job: to the
    client it could be a path too, and this one runs beside the server's own files.

    Raises:
        ApiError: there is none of this id.
    """
    name = await visit.text(field)
    return await visit.client.files.get(name) if name else None


async def looked_at(visit: Visit, *, answered: bool = True, like: data.Like | None = None) -> Looked:
    """What is in the file of a form, or in one that is on the server, which the field `id` names. A file from
    the form is uploaded if nothing is wrong with it.

    Args:
        answered: whether its rows have an answer beside an input.
        like: what another file has that this one must have too.

    Raises:
        HTTPException: 400, there is none, or it cannot be shown.
    """
    given, known = await dropped(visit), await visit.text("id")
    if given is None and not known:
        raise HTTPException(400, "Choose a file: CSV, TSV or JSON Lines, whose columns have names.")
    if given is None:
        there = await visit.client.files.get(known)
        if there.size_bytes > MOST_BYTES:
            raise HTTPException(400, f"{there.name} is too large for a page: start it with a command.")
        given = there.name, await visit.client.files.content(there)
    else:
        known = ""
    name, content = given
    found = await visit.work(data.look, content, name, answered=answered, like=like)
    if found.problems:
        return Looked(name, content, found, None)
    return Looked(name, content, found, known or (await visit.client.files.push(content, name=name)).id)
