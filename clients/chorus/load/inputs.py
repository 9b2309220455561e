"""What to ask: lines of a file, or built-in sentences."""

from __future__ import annotations

from pathlib import Path

from chorus.errors import InvalidArgumentError
from chorus.routes.inference import Input
from chorus.strict_json import parse_strictly

MAX_INPUT_FILE_BYTES = 256 * 1024 * 1024

SENTENCES: tuple[str, ...] = (
    "A warm, patient film that trusts its actors and never raises its voice.",
    "The plot folds in on itself until not even the director can find the way out.",
    "Two hours of rain, one good joke, and a dog that deserved a better agent.",
    "It begins as a comedy of manners and ends as a very good thriller.",
    "I laughed.",
    "The camera lingers on empty rooms as if they had something to confess.",
    "Shares of the shipping company fell four percent after it lowered its forecast for the autumn.",
    "The home side scored twice in the last ten minutes to reach its first final since 1987.",
    "Astronomers have measured the faint glow of a galaxy whose light set out when the universe was young.",
    "The new phone is thinner than last year's, charges faster, and cannot be repaired by anybody.",
    "Talks on the border dispute resumed on Tuesday after an exchange of prisoners.",
    "Nothing happens, slowly, in beautiful light.",
    "A sequel that remembers what people liked about the first one, and gives them something else.",
    "The minister promised to dredge the harbour before winter; the fishermen have heard that before.",
    "Its heroine is funny, stubborn and wrong about nearly everything, which is why the ending hurts.",
    "Engineers traced the outage to a certificate that had expired while its owner was on holiday.",
)


def read_inputs(path: Path) -> tuple[Input, ...]:
    """Inputs from a file. In a `.jsonl` file each line is a text or an object of template fields, in any
    other file a text. Empty lines are skipped.

    Raises:
        InvalidArgumentError: the file is unreadable, not UTF-8, too large or empty, or a line is not an
            input.
    """
    try:
        if path.stat().st_size > MAX_INPUT_FILE_BYTES:
            raise InvalidArgumentError(
                f"{str(path)!r} has more than {MAX_INPUT_FILE_BYTES} bytes.", field="inputs"
            )
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidArgumentError(f"{str(path)!r} cannot be read: {reason}.", field="inputs") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise InvalidArgumentError(f"{str(path)!r} has no line with text.", field="inputs")
    if path.suffix != ".jsonl":
        return tuple(line for _, line in numbered)
    return tuple(_parse(line, f"{str(path)!r}, line {number}") for number, line in numbered)


def _parse(line: str, where: str) -> Input:
    try:
        value = parse_strictly(line)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{where} is not JSON: {error}.", field="inputs") from error
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value and all(isinstance(text, str) for text in value.values()):
        return value
    raise InvalidArgumentError(f"{where} must be a text or an object of texts.", field="inputs")
