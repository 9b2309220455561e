"""`/v1/ensembles`: stored ensembles."""

from __future__ import annotations

from collections.abc import Sequence

from chorus.errors import InvalidArgumentError
from chorus.methods import Method
from chorus.routes import references
from chorus.routes.moves import query_of_version
from chorus.routes.paging import PAGE, every
from chorus.routes.tasks import get_page
from chorus.types import Ensemble, EnsemblePage
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


def delete(name: str) -> Call[None]:
    """Delete an ensemble with all its versions."""
    named = references.parse_whole(name, "ensemble")
    return Call(Request("DELETE", _path(named), named.query), nothing)


class EnsembleMethods:
    """The methods of `client.ensembles`."""

    create = Method(create)
    list = Method(list_all)
    page = Method(list_page)
    get = Method(get)
    delete = Method(delete)
