"""`/v1/tasks`: tasks and their aliases. Of `tenant/task` the tenant goes into the query."""

from __future__ import annotations

from chorus.errors import InvalidArgumentError, NotFoundError
from chorus.methods import Method
from chorus.routes import references
from chorus.types import Aliases, AliasMove, Neighbors, Task, TaskPage
from chorus.wire import Call, Request, Steps, encode_json, model_of, nothing, query_of

MAX_PAGES = 10_000


def task_path(named: references.Named, *rest: str) -> str:
    """The path of a task or of something below it."""
    return "/".join(("/v1/tasks", references.segment(named.name, "task"), *rest))


def get_page(path: str, query: tuple[tuple[str, str], ...]) -> Request:
    """A GET, which may be repeated."""
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
        prefix: names that begin so.
        label: tasks whose newest version has this label.
        limit: at most 500; 50 where none is given.
        cursor: `next_cursor` of the page before.
    """
    query = query_of(prefix=prefix, label=label, limit=limit, cursor=cursor)
    return Call(get_page("/v1/tasks", query), model_of(TaskPage))


def list_all(*, prefix: str | None = None, label: str | None = None) -> Steps[list[Task]]:
    """Every task, page after page.

    Args:
        prefix: names that begin so.
        label: tasks whose newest version has this label.
    """
    found: list[Task] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = yield from list_page(prefix=prefix, label=label, limit=500, cursor=cursor)
        found.extend(page.tasks)
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


def get(task: str) -> Call[Task]:
    """One task: how many versions, and where its aliases point."""
    named = references.parse_whole(task)
    return Call(get_page(task_path(named), named.query), model_of(Task))


def delete(task: str) -> Call[None]:
    """Remove a task with all its versions and aliases. Requests in flight still finish."""
    named = references.parse_whole(task)
    return Call(Request("DELETE", task_path(named), named.query), nothing)


def aliases(task: str) -> Call[Aliases]:
    """A task's aliases and the history of their moves."""
    named = references.parse_whole(task)
    return Call(get_page(task_path(named, "aliases"), named.query), model_of(Aliases))


def promote(task: str, version: int | str, alias: str = "live") -> Call[AliasMove]:
    """Point an alias at a version, at once for everybody.

    Args:
        task: the task.
        version: its number.
        alias: starts with a letter; made if it is not there.

    Returns:
        Where the alias points now and pointed before.
    """
    named = references.parse_whole(task)
    path = task_path(named, "aliases", references.segment(alias, "alias"))
    body = encode_json({"version": references.version_number(version)})
    return Call(Request("PUT", path, named.query, body=body), model_of(AliasMove))


def remove_alias(task: str, alias: str) -> Call[None]:
    """Remove an alias; the version it pointed at stays."""
    named = references.parse_whole(task)
    path = task_path(named, "aliases", references.segment(alias, "alias"))
    return Call(Request("DELETE", path, named.query), nothing)


def rollback(task: str, alias: str = "live") -> Call[AliasMove]:
    """Point an alias back at the version it pointed at before its last move.

    Raises:
        ConflictError: there is nothing to go back to.
    """
    named = references.parse_whole(task)
    body = encode_json({"alias": alias})
    request = Request("POST", task_path(named, "rollback"), named.query, body=body)
    return Call(request, model_of(AliasMove))


def neighbors(task: str, version: int | str | None = None, *, top_k: int | None = None) -> Steps[Neighbors]:
    """The vocabulary pieces nearest to each row of a prompt, by cosine.

    Args:
        task: the task; `task@3` and `task@alias` name a version.
        version: a number or an alias, where `task` names none; `live` where neither does.
        top_k: pieces a row, at most 50; 5 where none is given.
    """
    number = yield from resolve(task, version)
    named = references.parse(task)
    path = task_path(named, "versions", str(number), "neighbors")
    return (yield from Call(get_page(path, named.query + query_of(top_k=top_k)), model_of(Neighbors)))


def resolve(task: str, version: int | str | None = None) -> Steps[int]:
    """The number of the version that a reference means now.

    Args:
        task: the task; `task@3` and `task@alias` name a version.
        version: a number or an alias, instead of the reference's own; `live` where neither is given.

    Raises:
        NotFoundError: no such task or alias.
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
    """Those of `client.tasks` that are about tasks and their aliases."""

    list = Method(list_all)
    page = Method(list_page)
    get = Method(get)
    delete = Method(delete)
    aliases = Method(aliases)
    promote = Method(promote)
    remove_alias = Method(remove_alias)
    rollback = Method(rollback)
    neighbors = Method(neighbors)
