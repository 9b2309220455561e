"""Bearer keys. They are kept only as SHA-256 digests and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from chorus_server.errors import ForbiddenError, InvalidInputError, UnauthenticatedError
from chorus_server.tenancy.principal import ALL_SCOPES, Principal, Scope

MIN_KEY_CHARACTERS = 16
MAX_KEY_CHARACTERS = 512
_MOST_SECRET_BYTES = 8 * MAX_KEY_CHARACTERS


class KeyRing:
    """Keys and the principals that they identify. If no key is `required`, everybody is `anonymous`.

    Args:
        keys: principal by secret; only digests of the secrets are kept.
        anonymous: the caller without a key, if no key is required.
    """

    def __init__(self, keys: Mapping[str, Principal], anonymous: Principal) -> None:
        self._keys = tuple((_digest(secret), principal) for secret, principal in keys.items())
        self._anonymous = anonymous

    @property
    def required(self) -> bool:
        """Whether routes of the API need a key: some key can do more than read metrics."""
        return any(principal.scopes != {Scope.METRICS} for _, principal in self._keys)

    def requires(self, scope: Scope) -> bool:
        """Whether a caller needs a key for this scope."""
        return self.required or any(scope in principal.scopes for _, principal in self._keys)

    def authorise(self, authorization: str | None, scope: Scope) -> Principal:
        """The caller behind an `Authorization` header.

        Raises:
            UnauthenticatedError: a key is needed, and the request has none or an unknown one.
            ForbiddenError: the key is known and lacks the scope.
        """
        if authorization is None:
            if self.requires(scope):
                raise UnauthenticatedError("This route needs a key: send 'Authorization: Bearer KEY'.")
            return self._anonymous
        principal = self._find(authorization)
        if principal is None:
            if not self.requires(scope):  # a client that always sends its key also works with an open server
                return self._anonymous
            raise UnauthenticatedError(
                "The key is not valid: check it, and send 'Authorization: Bearer KEY'."
            )
        if scope not in principal.scopes:
            raise ForbiddenError(f"The key lacks the scope {scope.value!r} that this route needs.")
        return principal

    def _find(self, authorization: str) -> Principal | None:
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not 0 < len(secret) <= MAX_KEY_CHARACTERS:
            return None
        digest = _digest(secret)
        found: Principal | None = None
        for known, principal in self._keys:  # every key is compared, so that the time reveals nothing
            if hmac.compare_digest(known, digest):
                found = principal
        return found


def load_keys(tenant: str, api_key_file: Path | None, scrape_token_file: Path | None) -> KeyRing:
    """The key ring of a server with at most one key and one scrape token.

    Raises:
        InvalidInputError: a file is missing or empty, or its secret is too short. The error names the
            setting, never the secret.
    """
    keys: dict[str, Principal] = {}
    if scrape_token_file is not None:
        secret = read_secret(scrape_token_file, "scrape_token_file")
        keys[secret] = Principal("", "scrape", frozenset({Scope.METRICS}))
    if api_key_file is not None:
        secret = read_secret(api_key_file, "api_key_file")
        if secret in keys:
            raise InvalidInputError(
                "The key and the scrape token are the same: use two different secrets.",
                field="scrape_token_file",
            )
        keys[secret] = Principal(tenant, "key", ALL_SCOPES)
    return KeyRing(keys, Principal(tenant, "anonymous", ALL_SCOPES))


def read_secret(path: Path, field: str) -> str:
    """One secret from a file, without surrounding white space.

    Raises InvalidInputError naming the setting.
    """
    try:
        with path.open("rb") as file:  # bounded: a device file may have no end
            secret = file.read(_MOST_SECRET_BYTES).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InvalidInputError(f"{str(path)[:200]} cannot be read: {reason}.", field=field) from None
    if not MIN_KEY_CHARACTERS <= len(secret) <= MAX_KEY_CHARACTERS or any(c.isspace() for c in secret):
        raise InvalidInputError(
            f"{path} must hold one secret of {MIN_KEY_CHARACTERS} to {MAX_KEY_CHARACTERS} characters without "
            "white space, such as `openssl rand -hex 32` prints.",
            field=field,
        )
    return secret


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
