"""`/v1/audit`: who changed what in the caller's tenant and, for operators, in others."""

from __future__ import annotations

from datetime import datetime

from chorus.errors import InvalidArgumentError
from chorus.methods import Method
from chorus.routes.tasks import get_page
from chorus.types import AuditPage
from chorus.wire import Call, model_of, query_of

PATH = "/v1/audit"


def page(
    *,
    tenant: str | None = None,
    after: int | None = None,
    limit: int | None = None,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Call[AuditPage]:
    """One page of an audit log, oldest first.

    Args:
        tenant: whose, for operators; by default the caller's own tenant. Empty for the whole store's.
        after: `next_after` of the previous page.
        limit: at most 500; default 50.
        actor, action, subject: only rows with exactly this.
        since, until: only rows from this moment on, and before that one; with a time zone.
    """
    for field, moment in (("since", since), ("until", until)):
        if moment is not None and (not isinstance(moment, datetime) or moment.utcoffset() is None):
            raise InvalidArgumentError(
                f"{field} is a datetime with a time zone, not {moment!r}.", field=field
            )
    query = query_of(
        tenant=tenant,
        after=after,
        limit=limit,
        actor=actor,
        action=action,
        subject=subject,
        since=since and since.isoformat(),
        until=until and until.isoformat(),
    )
    return Call(get_page(PATH, query), model_of(AuditPage))


class AuditMethods:
    """The methods of `client.audit`."""

    page = Method(page)
