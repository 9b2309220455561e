"""Tokens that were added to a model and are missing in `spiece.model`. They are refused by name: three
versions of the reference write the text around them in three ways (docs/models.md), so no ids would be those
of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.documents import quoted, read_json
from chorus_server.model.checkpoints.vocabulary_files import FoundVocabulary
from chorus_server.model.vocabulary import Vocabulary

_NAMED = 5
TOKENIZER_FILES = ("added_tokens.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json")

Declared = tuple[str, int | None]
"""A token's text, and its id if the file gives it."""


def check_added_tokens(folder: Path, found: FoundVocabulary) -> None:
    """Refuse a folder whose tokenizer files know tokens, or ids of tokens, that its vocabulary does not.

    Sentinels, control pieces and user-defined symbols of the vocabulary are in those files too; they are
    allowed.

    Raises:
        InvalidModelError: names the tokens, their ids and the file; or a file is not a JSON object.
    """
    vocabulary = Vocabulary.load(found.path, extra_ids=found.extra_ids)
    for name in TOKENIZER_FILES:
        if not (folder / name).is_file():
            continue
        document = read_json(folder / name)
        added: dict[str, int | None] = {}
        for token, id in declared_tokens(name, document):
            own = vocabulary.symbol(token)
            if own is None:
                added[token] = added.get(token) if id is None else id
            elif id not in (None, own):
                raise InvalidModelError(
                    f"{name} gives {quoted(token[:40])} the id {id}, but {found.path.name} gives it {own}: "
                    "one of them belongs to another model",
                    field="vocabulary",
                )
        if added:
            raise InvalidModelError(_refusal(name, found.path.name, added), field="vocabulary")
        _check_named_pieces(name, document, vocabulary, found.path.name)


def declared_tokens(name: str, document: dict[str, Any]) -> Iterator[Declared]:
    """The tokens that one of the files declares, in the form of any major version of transformers."""
    if name == "added_tokens.json":
        yield from ((token, _id(id)) for token, id in document.items())
        return
    if name == "tokenizer.json":
        for entry in _list(document.get("added_tokens")):
            yield from _declared(entry, entry.get("id") if isinstance(entry, dict) else None)
        return
    decoder = document.get("added_tokens_decoder")
    for id, entry in decoder.items() if isinstance(decoder, dict) else ():
        yield from _declared(entry, int(id) if id.isdecimal() and len(id) < 10 else None)
    for key in ("additional_special_tokens", "extra_special_tokens"):
        for entry in _list(document.get(key)):
            yield from _declared(entry, None)


def _check_named_pieces(name: str, document: dict[str, Any], vocabulary: Vocabulary, file: str) -> None:
    for key, id in (("eos_token", vocabulary.eos_id), ("unk_token", vocabulary.unk_id)):
        for token, _ in _declared(document.get(key), None):
            if token != vocabulary.piece(id):
                raise InvalidModelError(
                    f"{name} says {key} {quoted(token[:40])}, but in {file} it is "
                    f"{quoted(vocabulary.piece(id))} (id {id}): one of them belongs to another model",
                    field="vocabulary",
                )


def _declared(entry: Any, id: Any) -> Iterator[Declared]:
    token = entry.get("content") if isinstance(entry, dict) else entry
    if isinstance(token, str) and token:
        yield token, _id(id)


def _id(value: Any) -> int | None:
    return value if type(value) is int else None


def _list(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _refusal(name: str, vocabulary: str, added: dict[str, int | None]) -> str:
    shown = [
        quoted(token[:40]) + ("" if id is None else f" (id {id})")
        for token, id in list(added.items())[:_NAMED]
    ]
    rest = f" and {len(added) - _NAMED} more" if len(added) > _NAMED else ""
    count = "one token" if len(added) == 1 else f"{len(added)} tokens"
    return (
        f"{name} adds {count} to {vocabulary}: {', '.join(shown)}{rest}. Chorus writes text with "
        f"{vocabulary} alone, so the model would read ids other than those it was trained on; docs/models.md "
        "says what to do"
    )
