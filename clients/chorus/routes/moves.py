"""The calls that show and move the aliases of a task, an ensemble or a pack, and those that ask for one of
its versions."""

from __future__ import annotations

from chorus.routes import references
from chorus.routes.paging import PAGE, every
from chorus.types import Aliases, AliasMove
from chorus.wire import Call, Request, Steps, encode_json, model_of, nothing, query_of


def aliases_shown(
    path: str, named: references.Named, limit: int | None, cursor: str | None
) -> Steps[Aliases]:
    """The aliases of what has this path, and a page of their moves, or every move."""

    def page_at(cursor: str | None, most: int | None) -> Call[Aliases]:
        query = named.query + query_of(limit=most, cursor=cursor)
        return Call(Request("GET", f"{path}/aliases", query, repeatable=True), model_of(Aliases))

    if limit is not None or cursor is not None:
        return (yield from page_at(cursor, limit))
    pages = yield from every(lambda cursor: page_at(cursor, PAGE), lambda page: [page])
    history = [move for page in reversed(pages) for move in page.history]
    return pages[0].model_copy(update={"history": history, "next_cursor": None})


def alias_promoted(
    path: str, named: references.Named, version: int | str, alias: str, expected: int | None
) -> Call[AliasMove]:
    """Point an alias of what has this path at a version."""
    body = encode_json({"version": references.version_number(version)} | moved_from(expected))
    return Call(Request("PUT", _alias_path(path, alias), named.query, body=body), model_of(AliasMove))


def alias_removed(path: str, named: references.Named, alias: str) -> Call[None]:
    """Remove an alias."""
    return Call(Request("DELETE", _alias_path(path, alias), named.query), nothing)


def alias_rolled_back(
    path: str, named: references.Named, alias: str, version: int | None, expected: int | None
) -> Call[AliasMove]:
    """Point an alias back."""
    body = encode_json({"alias": alias} | moved_from(expected, version))
    return Call(Request("POST", f"{path}/rollback", named.query, body=body), model_of(AliasMove))


def moved_from(expected: int | None, version: int | None = None) -> dict[str, int]:
    """What a move is to be refused for, as fields of its body."""
    given = {"expected": expected, "version": version}
    return {name: value for name, value in given.items() if value is not None}


def query_of_version(named: references.Named) -> tuple[tuple[str, str], ...]:
    """The query of `name`, `name@3` or `name@alias`."""
    if named.suffix is None:
        return named.query
    return (*named.query, ("version" if named.suffix.isdigit() else "alias", named.suffix))


def _alias_path(path: str, alias: str) -> str:
    return f"{path}/aliases/{references.segment(alias, 'alias')}"
