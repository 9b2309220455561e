"""Checks whether versions may vote together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row

from prompts_store.checks import is_finite
from prompts_store.database import scoped
from prompts_store.errors import InvalidError
from prompts_store.grants import rows as grants
from prompts_store.names import check_name
from prompts_store.records import EnsembleMember, Reference
from prompts_store.tasks.references import check_version
from prompts_store.tasks.versions import resolve
from prompts_store.text import shown

MAX_MEMBERS = 64


def check_members(members: Sequence[EnsembleMember], vote: object) -> tuple[EnsembleMember, ...]:
    """Return the members if each is well formed and none is named twice.

    Raises:
        InvalidError: field `vote`, `members` or `members.N.NAME`.
    """
    if vote != "majority":
        raise InvalidError(f"The vote {shown(vote)} is not known; use 'majority'.", field="vote")
    if not 1 <= len(members) <= MAX_MEMBERS:
        raise InvalidError(
            f"An ensemble has 1 to {MAX_MEMBERS} members, not {len(members)}.", field="members"
        )
    seen: dict[tuple[str, str, int], int] = {}
    for i, member in enumerate(members):
        check_name(member.tenant, field=f"members.{i}.tenant")
        check_name(member.task, field=f"members.{i}.task")
        check_version(member.version, field=f"members.{i}.version")
        _check_weight(member.weight, f"members.{i}.weight")
        first = seen.setdefault((member.tenant, member.task, member.version), i)
        if first != i:
            raise InvalidError(
                f"Member {i} is the same version as member {first}; list it once and give it more weight.",
                field=f"members.{i}",
            )
    return tuple(members)


def find_members(
    connection: Connection, tenant: str, members: Sequence[EnsembleMember]
) -> list[tuple[EnsembleMember, int]]:
    """The members of a tenant's ensemble, with the keys of their versions.

    Raises:
        NotFoundError: a version does not exist, or is another tenant's and may not be asked; names the
            member's path.
        InvalidError: `base_mismatch`: the members have different base models or widths.
    """
    rows: list[Row[Any]] = []
    for i, member in enumerate(members):
        field, owner = f"members.{i}", member.tenant
        grants.require(connection, "task", owner, member.task, tenant=tenant, right="infer", field=field)
        reference = Reference(owner, member.task, version=member.version, alias=None)
        with scoped(connection, owner):
            rows.append(resolve(connection, reference, field=field))
    known: str | None = None
    for i, row in enumerate(rows):
        known = known or row.base_fingerprint
        if row.width != rows[0].width or row.base_fingerprint not in (None, known):
            raise InvalidError(
                f"Member {i} was tuned on another base model than the members before it; an ensemble has "
                f"one base.",
                field=f"members.{i}",
                code="base_mismatch",
            )
    return [(member, row.id) for member, row in zip(members, rows, strict=True)]


def _check_weight(weight: object, field: str) -> None:
    if not (is_finite(weight) and weight > 0):
        raise InvalidError(f"The weight is {shown(weight)}; a weight must be a number above 0.", field=field)
