"""The kinds of list: a name in a tenant whose numbered versions each list versions of tasks, and its
aliases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, Row, Table

from prompts_store.audit.records import Action
from prompts_store.grants.records import GrantKind
from prompts_store.tasks.aliasing import Family
from prompts_store.tenants.records import ChangeKind

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class ListKind(Generic[V]):
    """The tables of one kind of list, and its words.

    Attributes:
        family: its names, versions and aliases.
        items: the table of what its versions list, in order of `position`.
        list_version: the column of `items` that says to which version of the list an item belongs.
        version: the record of a version, from its row and the rows of its items; each has the tenant, the
            name and the number of the version that it lists.
        word: what errors and grants call it.
        published, deleted: kinds of change in the feed.
        publish, delete: what the audit log calls these.
    """

    family: Family
    items: Table
    list_version: Column[Any]
    version: Callable[[Row[Any], Sequence[Row[Any]]], V]
    word: GrantKind
    published: ChangeKind
    deleted: ChangeKind
    publish: Action
    delete: Action
