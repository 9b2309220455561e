"""`/v1/ensembles`: stored ensembles."""

from __future__ import annotations

from collections.abc import Sequence

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
from chorus.types import Aliases, AliasMove, Ensemble, EnsemblePage, EnsembleVersionPage
from chorus.wire import Call, Request, Steps, encode_json, model_of, nothing, query_of


def _path(named: references.Named, *rest: str) -> str:
    return "/".join(("/v1/ensembles", references.segment(named.name, "ensemble"), *rest))


def create(
    name: str, tasks: Sequence[str], *, vote: str = "majority", weights: Sequence[float] | None = None
) -> Call[Ensemble]:
    """Make the next version of a stored ensemble. Its members are pinned to the versions that the references
    name now.

    Args:
        name: the ensemble; it is created if it does not exist.
        tasks: references; ties go to the earlier one.
        vote: `majority`.
        weights: one for each of `tasks`.
    """
    named = references.parse_whole(name, "ensemble")
    if isinstance(tasks, str) or not tasks:
        raise InvalidArgumentError("tasks is a list of one reference or more.", field="tasks")
    body = {"tasks": list(tasks), "vote": vote, "weights": None if weights is None else list(weights)}
    request = Request("POST", _path(named, "versions"), named.query, body=encode_json(body))
    return Call(request, model_of(Ensemble))


def list_page(
    *, prefix: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Call[EnsemblePage]:
    """One page of the ensembles.

    Args:
        prefix: only names that begin with this.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    query = query_of(prefix=prefix, limit=limit, cursor=cursor)
    return Call(get_page("/v1/ensembles", query), model_of(EnsemblePage))


def list_all(*, prefix: str | None = None) -> Steps[list[Ensemble]]:
    """Every ensemble; fetches page after page."""
    return (
        yield from every(
            lambda cursor: list_page(prefix=prefix, limit=PAGE, cursor=cursor), lambda page: page.ensembles
        )
    )


def get(name: str) -> Call[Ensemble]:
    """One ensemble: `name`, `name@3` or `name@alias`."""
    named = references.parse(name, "ensemble")
    return Call(get_page(_path(named), query_of_version(named)), model_of(Ensemble))


def list_versions(
    name: str, *, limit: int | None = None, cursor: str | None = None
) -> Call[EnsembleVersionPage]:
    """One page of an ensemble's versions, newest first.

    Args:
        name: the ensemble.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    named = references.parse_whole(name, "ensemble")
    query = named.query + query_of(limit=limit, cursor=cursor)
    return Call(get_page(_path(named, "versions"), query), model_of(EnsembleVersionPage))


def all_versions(name: str) -> Steps[list[Ensemble]]:
    """Every version of an ensemble, newest first; fetches page after page."""
    return (
        yield from every(
            lambda cursor: list_versions(name, limit=PAGE, cursor=cursor), lambda page: page.versions
        )
    )


def delete(name: str) -> Call[None]:
    """Delete an ensemble with all its versions."""
    named = references.parse_whole(name, "ensemble")
    return Call(Request("DELETE", _path(named), named.query), nothing)


def aliases(name: str, *, limit: int | None = None, cursor: str | None = None) -> Steps[Aliases]:
    """An ensemble's aliases, where a rollback of each would lead, and the history of their moves.

    Args:
        name: the ensemble.
        limit: only a page of moves, the newest, at most 500. Without it and `cursor`, every move.
        cursor: `next_cursor` of the page before, for older moves.
    """
    named = references.parse_whole(name, "ensemble")
    return aliases_shown(_path(named), named, limit, cursor)


def promote(
    name: str, version: int | str, alias: str = "live", *, expected: int | None = None
) -> Call[AliasMove]:
    """Point an alias of an ensemble at a version. Everybody sees it at once.

    Args:
        name: the ensemble.
        version: the version's number.
        alias: it begins with a letter, and is created if it does not exist.
        expected: move it only if it names this version now; 0 if there is to be no such alias.

    Raises:
        ConflictError: `alias_moved`: it names another version than `expected`.
    """
    named = references.parse_whole(name, "ensemble")
    return alias_promoted(_path(named), named, version, alias, expected)


def remove_alias(name: str, alias: str) -> Call[None]:
    """Remove an alias of an ensemble. The version that it named stays."""
    named = references.parse_whole(name, "ensemble")
    return alias_removed(_path(named), named, alias)


def rollback(
    name: str, alias: str = "live", *, version: int | None = None, expected: int | None = None
) -> Call[AliasMove]:
    """Point an alias of an ensemble back to the version that it named before its last move.

    Args:
        name: the ensemble.
        alias: the alias.
        version: go there or nowhere, as `back` of `aliases(name)` told it.
        expected: move it only if it names this version now.

    Raises:
        ConflictError: there is nothing to go back to; `alias_moved`: it names another version than
            `expected`, or would go to another than `version`.
    """
    named = references.parse_whole(name, "ensemble")
    return alias_rolled_back(_path(named), named, alias, version, expected)


class EnsembleMethods:
    """The methods of `client.ensembles`."""

    create = Method(create)
    list = Method(list_all)
    page = Method(list_page)
    get = Method(get)
    delete = Method(delete)
    versions = Method(all_versions)
    versions_page = Method(list_versions)
    aliases = Method(aliases)
    promote = Method(promote)
    remove_alias = Method(remove_alias)
    rollback = Method(rollback)
