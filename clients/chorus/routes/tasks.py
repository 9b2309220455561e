"""`/v1/tasks`: tasks and their aliases. The tenant of `tenant/task` goes into the query."""

from __future__ import annotations

from chorus.errors import InvalidArgumentError, NotFoundError
from chorus.methods import Method
from chorus.routes import references
from chorus.routes.moves import alias_promoted, alias_removed, alias_rolled_back, aliases_shown
from chorus.routes.paging import PAGE, every
from chorus.types import Aliases, AliasMove, Neighbors, Task, TaskPage
from chorus.wire import Call, Request, Steps, model_of, nothing, query_of


def task_path(named: references.Named, *rest: str) -> str:
    """The path of a task or of something below it."""
    return "/".join(("/v1/tasks", references.segment(named.name, "task"), *rest))


def get_page(path: str, query: tuple[tuple[str, str], ...]) -> Request:
    """A GET request, which may be repeated."""
    return Request("GET", path, query, repeatable=True)


def list_page(
    *,
    prefix: str | None = None,
    label: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[TaskPage]:
    """One page of the tasks.

    Args:
        prefix: only names that begin with this.
        label: only tasks whose live version has this label.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    query = query_of(prefix=prefix, label=label, limit=limit, cursor=cursor)
    return Call(get_page("/v1/tasks", query), model_of(TaskPage))


def list_all(*, prefix: str | None = None, label: str | None = None) -> Steps[list[Task]]:
    """Every task; fetches page after page.

    Args:
        prefix: only names that begin with this.
        label: only tasks whose live version has this label.
    """
    return (
        yield from every(
            lambda cursor: list_page(prefix=prefix, label=label, limit=PAGE, cursor=cursor),
            lambda page: page.tasks,
        )
    )


def get(task: str) -> Call[Task]:
    """One task: how many versions it has, and where its aliases point."""
    named = references.parse_whole(task)
    return Call(get_page(task_path(named), named.query), model_of(Task))


def delete(task: str) -> Call[None]:
    """Delete a task with all its versions and aliases. Requests in flight still finish."""
    named = references.parse_whole(task)
    return Call(Request("DELETE", task_path(named), named.query), nothing)


def aliases(task: str, *, limit: int | None = None, cursor: str | None = None) -> Steps[Aliases]:
    """A task's aliases, where a rollback of each would lead, and the history of their moves.

    Args:
        task: the task.
        limit: only a page of moves, the newest, at most 500. Without it and `cursor`, every move.
        cursor: `next_cursor` of the page before, for older moves.
    """
    named = references.parse_whole(task)
    return aliases_shown(task_path(named), named, limit, cursor)


def promote(
    task: str, version: int | str, alias: str = "live", *, expected: int | None = None
) -> Call[AliasMove]:
    """Point an alias at a version. Everybody sees it at once.

    Args:
        task: the task.
        version: the version's number.
        alias: it begins with a letter, and is created if it does not exist.
        expected: move it only if it names this version now; 0 if there is to be no such alias.

    Returns:
        Where the alias points now, and where it pointed before.

    Raises:
        ConflictError: `alias_moved`: it names another version than `expected`.
    """
    named = references.parse_whole(task)
    return alias_promoted(task_path(named), named, version, alias, expected)


def remove_alias(task: str, alias: str) -> Call[None]:
    """Remove an alias. The version that it named stays."""
    named = references.parse_whole(task)
    return alias_removed(task_path(named), named, alias)


def rollback(
    task: str, alias: str = "live", *, version: int | None = None, expected: int | None = None
) -> Call[AliasMove]:
    """Point an alias back to the version that it named before its last move.

    Args:
        task: the task.
        alias: the alias.
        version: go there or nowhere, as `back` of `aliases(task)` told it.
        expected: move it only if it names this version now.

    Raises:
        ConflictError: there is nothing to go back to; `alias_moved`: it names another version than
            `expected`, or would go to another than `version`.
    """
    named = references.parse_whole(task)
    return alias_rolled_back(task_path(named), named, alias, version, expected)


def neighbors(task: str, version: int | str | None = None, *, top_k: int | None = None) -> Steps[Neighbors]:
    """The vocabulary pieces nearest to each row of a prompt, by cosine.

    Args:
        task: the task; `task@3` or `task@alias` names a version.
        version: a number or an alias, if `task` names no version; default `live`.
        top_k: pieces for each row, at most 50; default 5.
    """
    number = yield from resolve(task, version)
    named = references.parse(task)
    path = task_path(named, "versions", str(number), "neighbors")
    return (yield from Call(get_page(path, named.query + query_of(top_k=top_k)), model_of(Neighbors)))


def resolve(task: str, version: int | str | None = None) -> Steps[int]:
    """The number of the version that a reference names now.

    Args:
        task: the task; `task@3` or `task@alias` names a version.
        version: a number or an alias, if `task` names no version; default `live`.

    Raises:
        NotFoundError: there is no such task or alias.
    """
    named = references.parse(task)
    if version is not None and named.suffix is not None:
        raise InvalidArgumentError(f"{task!r} names a version already; give no other.", field="version")
    wanted = version if version is not None else named.suffix or "live"
    if isinstance(wanted, int) or wanted.isdigit():
        return references.version_number(wanted)
    shown = yield from Call(get_page(task_path(named), named.query), model_of(Task))
    if wanted not in shown.aliases:
        known = ", ".join(sorted(shown.aliases)) or "none"
        raise NotFoundError(
            f"{shown.task} has no alias {wanted!r}; it has: {known}.",
            code="unknown_alias",
            field="version",
            status=404,
        )
    return shown.aliases[wanted]


class TaskMethods:
    """The methods of `client.tasks` for tasks and their aliases."""

    list = Method(list_all)
    page = Method(list_page)
    get = Method(get)
    delete = Method(delete)
    aliases = Method(aliases)
    promote = Method(promote)
    remove_alias = Method(remove_alias)
    rollback = Method(rollback)
    neighbors = Method(neighbors)
