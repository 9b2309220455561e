"""Bearer keys that come from files, kept as SHA-256 digests only and compared in constant time.

One file makes whoever runs the machine an operator. The two others are how a server of 0.1.0 was told its one
key and its scrape token.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from pathlib import Path

from chorus_server.errors import InvalidInputError
from chorus_server.tenancy.principal import ALL_SCOPES, TENANT_SCOPES, Principal, Scope

LOG = logging.getLogger("chorus.tenancy")

MIN_KEY_CHARACTERS = 16
MAX_KEY_CHARACTERS = 512
_MOST_SECRET_BYTES = 8 * MAX_KEY_CHARACTERS


class KeyRing:
    """The keys of files, and whom they stand for.

    Args:
        keys: principal by secret; only digests of the secrets are kept.
        anonymous: the caller without a key, if no key is required.
    """

    def __init__(self, keys: Mapping[str, Principal], anonymous: Principal) -> None:
        self._keys = tuple((_digest(secret), principal) for secret, principal in keys.items())
        self.anonymous = anonymous

    @property
    def required(self) -> bool:
        """Whether routes of the API need a key: some key can do more than read metrics."""
        return any(principal.scopes != {Scope.METRICS} for _, principal in self._keys)

    def requires(self, scope: Scope | None) -> bool:
        """Whether a caller needs a key for this scope."""
        return self.required or any(scope in principal.scopes for _, principal in self._keys)

    @property
    def principals(self) -> tuple[Principal, ...]:
        """Whom they stand for."""
        return tuple(principal for _, principal in self._keys)

    def find(self, secret: str) -> Principal | None:
        """Whom a secret stands for."""
        if not self._keys:
            return None
        digest = _digest(secret)
        found: Principal | None = None
        for known, principal in self._keys:  # every key is compared, so that the time reveals nothing
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    def seal(self, secret: str, token: str) -> str:
        """What a session keeps of a key from a file: only who has the session's token can compare it."""
        return _sealed(_digest(secret), token)

    def sealed(self, seal: str, token: str) -> Principal | None:
        """Whom the key of a session stands for; None if no file has it any more."""
        for known, principal in self._keys:
            if hmac.compare_digest(_sealed(known, token), seal):
                return principal
        return None


def load_keys(
    tenant: str, operator_key_file: Path | None, api_key_file: Path | None, scrape_token_file: Path | None
) -> KeyRing:
    """The keys of the settings' files; those that are deprecated are told of in the log.

    Raises:
        InvalidInputError: a file is missing, empty or its secret too short, or two hold the same; names the
        setting, never the secret.
    """
    keys: dict[str, Principal] = {}
    for field, file, principal, instead in (
        ("operator_key_file", operator_key_file, Principal(tenant, "operator", ALL_SCOPES), None),
        ("api_key_file", api_key_file, Principal(tenant, "key", TENANT_SCOPES), "a key"),
        (
            "scrape_token_file",
            scrape_token_file,
            Principal(tenant, "scrape", frozenset({Scope.METRICS})),
            "a key with the scope metrics:read",
        ),
    ):
        if file is None:
            continue
        secret = read_secret(file, field)
        if secret in keys:
            raise InvalidInputError(
                "The key is the one of another file: make two, or leave this setting out.", field=field
            )
        keys[secret] = principal
        if instead is not None:
            LOG.warning(
                "%s still works and is deprecated: make %s with POST /v1/keys, see docs/tenants.md",
                field,
                instead,
            )
    return KeyRing(keys, Principal(tenant, "anonymous", ALL_SCOPES, keyless=True))


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


def _sealed(digest: bytes, token: str) -> str:
    return hmac.new(token.encode(), digest, hashlib.sha256).hexdigest()


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
