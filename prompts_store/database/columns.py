"""Column types that mean the same in every database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, String
from sqlalchemy.types import TypeDecorator

from prompts_store.names import MAX_NAME_CHARACTERS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# Lists are ordered by name, so names must sort by their bytes; PostgreSQL's default order depends on the
# locale.
NAME = String(MAX_NAME_CHARACTERS).with_variant(String(MAX_NAME_CHARACTERS, collation="C"), "postgresql")
# `tenant/task`.
_TASK_CHARACTERS = 2 * MAX_NAME_CHARACTERS + 1
TASK = String(_TASK_CHARACTERS).with_variant(String(_TASK_CHARACTERS, collation="C"), "postgresql")
LABEL = String(256).with_variant(String(256, collation="C"), "postgresql")
DIGEST = String(64)
# The name by which callers know a data file or a job, see `ids`.
PUBLIC_ID = String(32)
# SQLite assigns keys by itself only to its own INTEGER PRIMARY KEY.
KEY = BigInteger().with_variant(Integer, "sqlite")


class Instant(TypeDecorator[datetime]):
    """A moment, kept as whole microseconds since 1970 UTC: exact, and ordered in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Microseconds of an aware datetime."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """An aware datetime in UTC."""
        return None if value is None else _EPOCH + value * _MICROSECOND
