"""Aliases: movable names for versions, with a history. Tasks, ensembles and packs share this code.

History is never rewritten. Every move also records to which earlier move a rollback goes (`back_id`), so that
going back twice goes back two steps instead of there and back again:

    set 1, set 2, set 3        1 <- 2 <- 3
    rollback                   2 (back: 1)
    rollback                   1 (back: nothing)
    set 4                      1 <- 4
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    Row,
    Table,
    and_,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    null,
    select,
    update,
)

from prompts_store.audit import chain
from prompts_store.audit.records import Action
from prompts_store.database import tables
from prompts_store.errors import ConflictError, NotFoundError
from prompts_store.pages import check_limit, decode_cursor, encode_cursor
from prompts_store.records import AliasMove, Page
from prompts_store.tasks.references import check_version
from prompts_store.tenants import feed
from prompts_store.tenants.records import ChangeKind

MAX_ALIASES = 100
"""Of one task, ensemble or pack."""


@dataclass(frozen=True, slots=True)
class Family:
    """The tables of one kind of name that has versions and aliases.

    Attributes:
        owners: the table of the names.
        owner: the column of `versions` that says to which name a version belongs.
        noun: the word for it in errors.
        moved, removed: kinds of change in the feed, for an alias that was moved or removed.
        actions: what the audit log calls a move, a rollback and a removal.
    """

    owners: Table
    versions: Table
    owner: Column[Any]
    aliases: Table
    moves: Table
    noun: str
    moved: ChangeKind
    removed: ChangeKind
    actions: tuple[Action, Action, Action]


TASKS = Family(
    tables.tasks,
    tables.versions,
    tables.versions.c.task_id,
    tables.aliases,
    tables.alias_moves,
    "task",
    "alias_moved",
    "alias_removed",
    ("alias.move", "alias.rollback", "alias.remove"),
)
ENSEMBLES = Family(
    tables.ensembles,
    tables.ensemble_versions,
    tables.ensemble_versions.c.ensemble_id,
    tables.ensemble_aliases,
    tables.ensemble_alias_moves,
    "ensemble",
    "ensemble_alias_moved",
    "ensemble_alias_removed",
    ("ensemble_alias.move", "ensemble_alias.rollback", "ensemble_alias.remove"),
)

PACKS = Family(
    tables.packs,
    tables.pack_versions,
    tables.pack_versions.c.pack_id,
    tables.pack_aliases,
    tables.pack_alias_moves,
    "pack",
    "pack_alias_moved",
    "pack_alias_removed",
    ("pack_alias.move", "pack_alias.rollback", "pack_alias.remove"),
)


def current(connection: Connection, family: Family, owner_id: int) -> dict[str, int]:
    """The aliases of one name: version numbers by alias."""
    return current_of(connection, family, [owner_id]).get(owner_id, {})


def current_of(connection: Connection, family: Family, owner_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """The aliases of several names, by the name's key."""
    table = family.aliases
    found: defaultdict[int, dict[str, int]] = defaultdict(dict)
    rows = connection.execute(
        select(table).where(table.c.owner_id.in_(owner_ids)).order_by(table.c.owner_id, table.c.alias)
    )
    for row in rows:
        found[row.owner_id][row.alias] = row.number
    return found


def backs_of(connection: Connection, family: Family, owner_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """To which version a rollback of each alias would go, by the name's key. An alias that has nothing to go
    back to is left out."""
    found: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for row in _targets(connection, family, owner_ids):
        found[row.owner_id][row.alias] = row.number
    return found


def history(
    connection: Connection, family: Family, owner_id: int, limit: int, cursor: str | None
) -> Page[AliasMove]:
    """A page of the moves of all aliases of one name: the newest, oldest first; the next page has older ones.

    Raises:
        InvalidError: a bad limit or cursor.
    """
    limit, table = check_limit(limit), family.moves
    # How many moves were not on a page yet. None is ever removed or put between, so a count is a place.
    left = decode_cursor(table.name, cursor, check_version)
    of_it = table.c.owner_id == owner_id
    if left is None:
        left = connection.execute(select(func.count()).select_from(table).where(of_it)).scalar_one()
    older = max(0, left - limit)
    query = select(table).where(of_it).order_by(table.c.id).offset(older).limit(left - older)
    moves = tuple(map(_move_record, connection.execute(query)))
    return Page(moves, encode_cursor(table.name, older) if older else None)


def moves_of(connection: Connection, family: Family, move_ids: Sequence[int]) -> dict[int, AliasMove]:
    """Moves by their keys."""
    rows = connection.execute(select(family.moves).where(family.moves.c.id.in_(move_ids)))
    return {row.id: _move_record(row) for row in rows}


def _move_record(row: Row[Any]) -> AliasMove:
    return AliasMove(row.alias, row.number, row.previous, row.moved_at, row.moved_by)


def move(
    connection: Connection,
    family: Family,
    owner_id: int,
    alias: str,
    number: int,
    *,
    expected: int | None = None,
    moved_by: str,
    now: datetime,
) -> AliasMove:
    """Point an alias at a live version. If it points there already, nothing is written.

    Args:
        expected: the version that it names now, 0 if there is no such alias; None for any.

    Raises:
        NotFoundError: `unknown_version`.
        ConflictError: `alias_moved`: it names another than `expected`; `too_many_aliases`.
    """
    if not _is_live(connection, family, owner_id, number):
        raise NotFoundError(
            f"The {family.noun} has no version {number}, or it was deleted.",
            field="version",
            code="unknown_version",
        )
    there = current(connection, family, owner_id)
    previous = there.get(alias)
    if previous == number:
        return AliasMove(alias, number, previous, now, moved_by)
    _check_expected(alias, previous, expected)
    if previous is None and len(there) >= MAX_ALIASES:
        raise ConflictError(
            f"The {family.noun} has {MAX_ALIASES} aliases, and may have no more: remove one.",
            field="alias",
            code="too_many_aliases",
        )
    last = _last_move(connection, family, owner_id, alias)
    # A removal does not count as a state to go back to; the state before it does.
    back_id = None if last is None else last.id if last.number is not None else last.back_id
    made = AliasMove(alias, number, previous, now, moved_by)
    return _record(connection, family, owner_id, made, back_id, family.actions[0])


def remove(
    connection: Connection, family: Family, owner_id: int, alias: str, *, moved_by: str, now: datetime
) -> AliasMove:
    """Remove an alias; its history stays.

    Raises:
        NotFoundError: `unknown_alias`.
    """
    previous = _require(connection, family, owner_id, alias)
    last = _last_move(connection, family, owner_id, alias)
    back_id = last.id if last is not None else None
    made = AliasMove(alias, None, previous, now, moved_by)
    return _record(connection, family, owner_id, made, back_id, family.actions[2])


def rollback(
    connection: Connection,
    family: Family,
    owner_id: int,
    alias: str,
    *,
    version: int | None = None,
    expected: int | None = None,
    moved_by: str,
    now: datetime,
) -> AliasMove:
    """Point an alias at the version that it named before. Versions deleted since then are skipped.

    Args:
        version: where it is to go, as `backs_of` told it; None for wherever that is now.
        expected: the version that it names now; None for any.

    Raises:
        NotFoundError: `unknown_alias`.
        ConflictError: there is nothing to go back to; `alias_moved`: it names another version than
            `expected`, or would go to another than `version`.
    """
    number = _require(connection, family, owner_id, alias)
    _check_expected(alias, number, expected)
    targets = {row.alias: row for row in _targets(connection, family, [owner_id])}
    if alias not in targets:
        raise ConflictError(
            f"There is no earlier version to go back to: '{alias}' has named {number} since it was created, "
            f"or what it named before was deleted.",
            field="alias",
        )
    target = targets[alias]
    if version not in (None, target.number):
        raise ConflictError(
            f"A rollback of '{alias}' leads to version {target.number} now, not to {version}: look again.",
            field="version",
            code="alias_moved",
        )
    made = AliasMove(alias, target.number, number, now, moved_by)
    return _record(connection, family, owner_id, made, target.after, family.actions[1])


def unknown_alias(alias: str, noun: str, *, field: str = "alias") -> NotFoundError:
    """The error for an alias that does not exist."""
    return NotFoundError(f"The {noun} has no alias '{alias}'.", field=field, code="unknown_alias")


def _check_expected(alias: str, number: int | None, expected: int | None) -> None:
    if expected not in (None, number or 0):
        names = "no version" if number is None else f"version {number}"
        raise ConflictError(
            f"'{alias}' was moved meanwhile and names {names} now: look again at what would change.",
            field="expected",
            code="alias_moved",
        )


def _require(connection: Connection, family: Family, owner_id: int, alias: str) -> int:
    number = current(connection, family, owner_id).get(alias)
    if number is None:
        raise unknown_alias(alias, family.noun)
    return number


def _is_live(connection: Connection, family: Family, owner_id: int, number: int) -> bool:
    table = family.versions
    query = select(table.c.id).where(
        family.owner == owner_id, table.c.number == number, table.c.deleted_at.is_(None)
    )
    return connection.execute(query).one_or_none() is not None


def _last_move(connection: Connection, family: Family, owner_id: int, alias: str) -> Row[Any] | None:
    table = family.moves
    query = select(table).where(table.c.owner_id == owner_id, table.c.alias == alias)
    return connection.execute(query.order_by(table.c.id.desc()).limit(1)).one_or_none()


def _targets(connection: Connection, family: Family, owner_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Where rollbacks go: rows of `owner_id`, `alias`, `number`, and `after`: the move that the rollback
    after that one looks at. Walks from each alias's last move along `back_id` to the first live version."""
    moves, aliases, versions = family.moves, family.aliases, family.versions
    last = select(func.max(moves.c.id)).where(moves.c.owner_id.in_(owner_ids))
    nothing = cast(null(), Integer)
    steps = (
        select(
            moves.c.owner_id,
            moves.c.alias,
            aliases.c.number.label("now"),
            moves.c.back_id.label("next"),
            nothing.label("number"),
            moves.c.back_id.label("after"),
        )
        .join(aliases, and_(aliases.c.owner_id == moves.c.owner_id, aliases.c.alias == moves.c.alias))
        .where(moves.c.id.in_(last.group_by(moves.c.owner_id, moves.c.alias)))
        .cte("steps", recursive=True)
    )
    is_live = exists().where(
        family.owner == moves.c.owner_id,
        versions.c.number == moves.c.number,
        versions.c.deleted_at.is_(None),
        moves.c.number != steps.c.now,
    )
    steps = steps.union_all(
        select(
            moves.c.owner_id,
            moves.c.alias,
            steps.c.now,
            case((is_live, None), else_=moves.c.back_id),
            case((is_live, moves.c.number)),
            moves.c.back_id,
        ).join(steps, steps.c.next == moves.c.id)
    )
    return connection.execute(select(steps).where(steps.c.number.is_not(None))).all()


def _record(
    connection: Connection,
    family: Family,
    owner_id: int,
    made: AliasMove,
    back_id: int | None,
    action: Action,
) -> AliasMove:
    table = family.aliases
    at = and_(table.c.owner_id == owner_id, table.c.alias == made.alias)
    if made.version is None:
        connection.execute(delete(table).where(at))
    elif not connection.execute(update(table).where(at).values(number=made.version)).rowcount:
        connection.execute(insert(table).values(owner_id=owner_id, alias=made.alias, number=made.version))
    connection.execute(
        insert(family.moves).values(
            owner_id=owner_id,
            alias=made.alias,
            number=made.version,
            previous=made.previous,
            back_id=back_id,
            moved_at=made.moved_at,
            moved_by=made.moved_by,
        )
    )
    owner = connection.execute(select(family.owners).where(family.owners.c.id == owner_id)).one()
    kind = family.moved if made.version is not None else family.removed
    subject = f"{owner.name}@{made.alias}"
    feed.record(connection, kind, owner.tenant, subject, now=made.moved_at)
    before, after = (
        None if number is None else {"version": number} for number in (made.previous, made.version)
    )
    chain.append(connection, action, owner.tenant, subject, now=made.moved_at, before=before, after=after)
    return made
