"""Sessions of the console: a browser that signed in with a key, until it signs out or time is over.

Kept is the SHA-256 of what the browser has, never the key. So whoever reads the table can sign in as nobody.
"""

from __future__ import annotations

import re
from datetime import datetime

from sqlalchemy import delete, insert, select

from prompts_store.base import StoreBase
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tenant_tables import sessions
from prompts_store.errors import InvalidError
from prompts_store.names import check_name
from prompts_store.tenants.expiring import drop_expired
from prompts_store.tenants.records import Session

MOST_SESSIONS = 100
"""Of one key, and of all keys from files of one tenant; one more ends the oldest."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Sessions(StoreBase):
    """Who is signed in to the console."""

    def open_session(
        self, tenant: str, digest: str, *, public: str | None, seal: str | None, expires_at: datetime
    ) -> None:
        """Remember a browser that signed in.

        Args:
            digest: SHA-256 (hex) of the session's token.
            public: of the tenant's key, see `key_format.public_part`; None for one from a file.
            seal: by which a key from a file is known again; None for one of the store.
            expires_at: from when it is refused.

        Raises:
            InvalidError: names the field at fault.
        """
        check_name(tenant, field="tenant")
        for field, value in (("digest", digest), ("seal", seal)):
            if value is not None and not _DIGEST.fullmatch(value):
                raise InvalidError(f"{field} must be a SHA-256 in hexadecimal.", field=field)
        if (public is None) == (seal is None):
            raise InvalidError("A session is of a stored key or of one from a file.", field="public")
        same = (sessions.c.tenant == tenant, sessions.c.public == public)
        newest = select(sessions.c.number).where(*same).order_by(sessions.c.number.desc())
        with self._database.write(tenant) as connection:
            numbers = list(connection.execute(newest.limit(MOST_SESSIONS - 1)).scalars())
            connection.execute(delete(sessions).where(*same, sessions.c.number.not_in(numbers)))
            connection.execute(
                insert(sessions).values(
                    tenant=tenant, digest=digest, public=public, seal=seal, expires_at=expires_at
                )
            )

    def find_session(self, digest: str) -> Session | None:
        """The session with this digest, of any tenant; None if there is none, or its time is over."""
        query = select(sessions).where(sessions.c.digest == digest)
        with self._database.read(EVERY_TENANT) as connection:
            row = connection.execute(query).one_or_none()
        if row is None or row.expires_at <= self._clock():
            return None
        return Session(row.tenant, row.public, row.seal, row.expires_at)

    def end_session(self, digest: str) -> None:
        """Forget a session; one that is not there changes nothing."""
        with self._database.write(EVERY_TENANT) as connection:
            connection.execute(delete(sessions).where(sessions.c.digest == digest))

    def drop_sessions(self) -> int:
        """Forget those whose time is over; answers with how many."""
        return drop_expired(self._database, sessions, self._clock())
