"""`/v1/packs`: decision packs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chorus.errors import InvalidArgumentError
from chorus.methods import Method
from chorus.routes import references
from chorus.routes.moves import (
    alias_promoted,
    alias_removed,
    alias_rolled_back,
    aliases_shown,
    query_of_version,
)
from chorus.routes.paging import PAGE, every
from chorus.routes.tasks import get_page
from chorus.types import Aliases, AliasMove, Pack, PackPage, PackVersionPage
from chorus.wire import Call, Request, Steps, encode_json, model_of, nothing, query_of


def _path(named: references.Named, *rest: str) -> str:
    return "/".join(("/v1/packs", references.segment(named.name, "pack"), *rest))


def create_pack(
    name: str, questions: Mapping[str, str | Mapping[str, Any]], *, unknown_questions: str = "refuse"
) -> Call[Pack]:
    """Make the next version of a pack. Its questions are pinned to the versions that the references name now.

    Args:
        name: the pack; it is created if it does not exist.
        questions: by id, a reference; or an object with `task`, and `values`: the version's label of each
            value of the question that is not a label itself.
        unknown_questions: `refuse`, or `base` to let the base model answer a question that is not here.
    """
    named = references.parse_whole(name, "pack")
    if not questions:
        raise InvalidArgumentError("questions has one question or more, by id.", field="questions")
    entries = {
        question: {"task": each} if isinstance(each, str) else dict(each)
        for question, each in questions.items()
    }
    body = {"questions": entries, "unknown_questions": unknown_questions}
    request = Request("POST", _path(named, "versions"), named.query, body=encode_json(body))
    return Call(request, model_of(Pack))


def list_pack_page(
    *, prefix: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Call[PackPage]:
    """One page of the packs.

    Args:
        prefix: only names that begin with this.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    query = query_of(prefix=prefix, limit=limit, cursor=cursor)
    return Call(get_page("/v1/packs", query), model_of(PackPage))


def list_packs(*, prefix: str | None = None) -> Steps[list[Pack]]:
    """Every pack; fetches page after page."""
    return (
        yield from every(
            lambda cursor: list_pack_page(prefix=prefix, limit=PAGE, cursor=cursor), lambda page: page.packs
        )
    )


def get_pack(name: str) -> Call[Pack]:
    """One pack: `name`, `name@3` or `name@alias`."""
    named = references.parse(name, "pack")
    return Call(get_page(_path(named), query_of_version(named)), model_of(Pack))


def list_pack_versions(
    name: str, *, limit: int | None = None, cursor: str | None = None
) -> Call[PackVersionPage]:
    """One page of a pack's versions, newest first.

    Args:
        name: the pack.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    named = references.parse_whole(name, "pack")
    query = named.query + query_of(limit=limit, cursor=cursor)
    return Call(get_page(_path(named, "versions"), query), model_of(PackVersionPage))


def all_pack_versions(name: str) -> Steps[list[Pack]]:
    """Every version of a pack, newest first; fetches page after page."""
    return (
        yield from every(
            lambda cursor: list_pack_versions(name, limit=PAGE, cursor=cursor), lambda page: page.versions
        )
    )


def delete_pack(name: str) -> Call[None]:
    """Delete a pack with all its versions."""
    named = references.parse_whole(name, "pack")
    return Call(Request("DELETE", _path(named), named.query), nothing)


def pack_aliases(name: str, *, limit: int | None = None, cursor: str | None = None) -> Steps[Aliases]:
    """A pack's aliases, where a rollback of each would lead, and the history of their moves.

    Args:
        name: the pack.
        limit: only a page of moves, the newest, at most 500. Without it and `cursor`, every move.
        cursor: `next_cursor` of the page before, for older moves.
    """
    named = references.parse_whole(name, "pack")
    return aliases_shown(_path(named), named, limit, cursor)


def promote_pack(
    name: str, version: int | str, alias: str = "live", *, expected: int | None = None
) -> Call[AliasMove]:
    """Point an alias of a pack at a version. Everybody sees it at once.

    Args:
        name: the pack.
        version: the version's number.
        alias: it begins with a letter, and is created if it does not exist.
        expected: move it only if it names this version now; 0 if there is to be no such alias.

    Raises:
        ConflictError: `alias_moved`: it names another version than `expected`.
    """
    named = references.parse_whole(name, "pack")
    return alias_promoted(_path(named), named, version, alias, expected)


def remove_pack_alias(name: str, alias: str) -> Call[None]:
    """Remove an alias of a pack. The version that it named stays."""
    named = references.parse_whole(name, "pack")
    return alias_removed(_path(named), named, alias)


def rollback_pack(
    name: str, alias: str = "live", *, version: int | None = None, expected: int | None = None
) -> Call[AliasMove]:
    """Point an alias of a pack back to the version that it named before its last move.

    Args:
        name: the pack.
        alias: the alias.
        version: go there or nowhere, as `back` of `aliases(name)` told it.
        expected: move it only if it names this version now.

    Raises:
        ConflictError: there is nothing to go back to; `alias_moved`: it names another version than
            `expected`, or would go to another than `version`.
    """
    named = references.parse_whole(name, "pack")
    return alias_rolled_back(_path(named), named, alias, version, expected)


class PackMethods:
    """The methods of `client.packs`."""

    create = Method(create_pack)
    list = Method(list_packs)
    page = Method(list_pack_page)
    get = Method(get_pack)
    delete = Method(delete_pack)
    versions = Method(all_pack_versions)
    versions_page = Method(list_pack_versions)
    aliases = Method(pack_aliases)
    promote = Method(promote_pack)
    remove_alias = Method(remove_pack_alias)
    rollback = Method(rollback_pack)
