"""The models that a caller may name, in one list with pages: the operator's names, the base, then the
tenant's tasks and packs together by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from chorus_server.api.openai.lists import items_after
from chorus_server.api.openai.model_names import BASE, mapped_names
from chorus_server.api.services import Services
from chorus_server.tenancy.principal import Principal
from prompts_store.pages import encode_cursor
from prompts_store.records import ListRecord, PackVersion, Page, TaskRecord

MAX_MODELS = 1000
"""Most models of a page."""


@dataclass(frozen=True, slots=True)
class NamedModel:
    """One model.

    Attributes:
        made: when; None for what was always there.
    """

    name: str
    description: str
    made: datetime | None = None

    @property
    def created(self) -> int:
        """Unix time; 0 for what was always there."""
        return 0 if self.made is None else int(self.made.timestamp())

    @property
    def release_date(self) -> str:
        """A date, which all clients read."""
        return "1970-01-01" if self.made is None else self.made.date().isoformat()


async def models_after(
    services: Services, principal: Principal, after: str | None, limit: int
) -> tuple[list[NamedModel], bool]:
    """A page of models, and whether there are more.

    Args:
        after: the last name of the page before; None for the first.
        limit: at most `MAX_MODELS`.
    """
    always = fixed_models(services)
    names = [each.name for each in always]
    begun = names.index(after) + 1 if after in names else 0
    found = always[begun:] if after is None or after in names else []
    start = None if after is None or after in names else after
    if len(found) <= limit:
        found += await _by_name(services, principal, start, limit + 1 - len(found), names)
    return found[:limit], len(found) > limit


def fixed_models(services: Services) -> list[NamedModel]:
    """The operator's names, and the base model by both of its own."""
    names = dict.fromkeys(mapped_names(services.settings), "a name that the operator has mapped")
    names.setdefault(BASE, f"the base model {services.base().name}")
    return [NamedModel(name, description) for name, description in names.items()]


def task_model(task: TaskRecord) -> NamedModel:
    """A task as a model."""
    return NamedModel(task.name, task.description or "task", task.created_at)


def pack_model(pack: ListRecord[PackVersion]) -> NamedModel:
    """A pack as a model."""
    return NamedModel(pack.name, f"pack of {len(pack.latest.entries)} questions", pack.created_at)


async def _by_name(
    services: Services, principal: Principal, after: str | None, most: int, taken: Sequence[str]
) -> list[NamedModel]:
    """Up to `most` tasks and packs whose names come after one. Of a pack and a task of one name, the task."""
    library, store = services.library, services.library.store
    found: dict[str, NamedModel] = {}
    lists: list[tuple[str, Callable[..., Page[Any]], Callable[[Any], NamedModel]]] = [
        ("packs", store.list_packs, pack_model),
        ("tasks", store.list_tasks, task_model),
    ]
    for kind, of, make in lists:
        cursor = None if after is None else encode_cursor(kind, after)
        read = partial(library.read, of, principal.tenant)
        records, _ = await items_after(
            read, cursor, most + len(taken), lambda each: principal.may_name(each.name)
        )
        found |= {each.name: each for each in map(make, records)}
    return [found[name] for name in sorted(found) if name not in taken][:most]
