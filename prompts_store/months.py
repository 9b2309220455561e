"""Calendar months in UTC, by which limits are counted and old rows go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_LONGEST = timedelta(days=31)


def month_of(moment: datetime) -> datetime:
    """The first moment of a moment's month."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_after(moment: datetime) -> datetime:
    """The first moment of the month after a moment's."""
    return month_of(month_of(moment) + _LONGEST)
