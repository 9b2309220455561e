"""What the door makes of job documents, beside what it is known to make of them.

`tests/fixtures/tuning/documents.json` has one case a line: a document, and either what is stored for it (what
differs from the stored form of the first case, by dotted path; "" where there is nothing) or the error. After
a change that is meant, `python -m tests.server.tuning.document.golden_documents` records anew what the door
says; the difference is for a person to read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from chorus_server.api.door.routing import BodyType
from chorus_server.api.http.errors import error_body
from chorus_server.api.services import Services
from chorus_server.api.tuning.jobs import _completed, _written
from chorus_server.errors import InvalidInputError
from chorus_server.settings import Settings
from chorus_server.tuning.document.job import JobDocument
from tests.places import FIXTURES

FILE = FIXTURES / "tuning" / "documents.json"

_DOOR = BodyType(JobDocument)
_SERVICES = cast(Services, SimpleNamespace(settings=Settings(model="any")))


def cases() -> list[dict[str, Any]]:
    """Every case, the plain document first."""
    found: list[dict[str, Any]] = json.loads(FILE.read_text("utf-8"))
    return found


def outcome(document: Any) -> dict[str, Any]:
    """`{"stored": ...}`, what is kept, or `{"refused": [code, field, message]}`."""
    try:
        sent = asyncio.run(_DOOR.checked(_SERVICES, json.dumps(document).encode()))
        return {"stored": _written(_completed(sent))}
    except InvalidInputError as error:
        told = error_body(error, "")
        return {"refused": [told["code"], told["field"], told["message"]]}


def recorded(document: Any, plain: dict[str, Any]) -> dict[str, Any]:
    """The outcome as the file has it."""
    found = outcome(document)
    if "stored" not in found:
        return found
    theirs, ours = dict(_leaves(plain)), dict(_leaves(found["stored"]))
    return {
        "stored": {
            path: ours.get(path, "") for path in ours | theirs if ours.get(path, "") != theirs.get(path, "")
        }
    }


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def main() -> None:
    """Record every outcome anew."""
    known = cases()
    plain = outcome(known[0]["document"])["stored"]
    lines = []
    for number, case in enumerate(known):
        found = {"stored": plain} if number == 0 else recorded(case["document"], plain)
        line = {"case": case["case"], "document": case["document"], **found}
        lines.append(json.dumps(line, ensure_ascii=False))
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n", "utf-8")


if __name__ == "__main__":
    main()
