"""What a key looks like: `ck_<8 public>_<32 secret>_<6 checksum>`, in base 62.

The public part finds the key's row and may be shown. The secret part has 190 random bits, so one round of
SHA-256 is enough to keep it by. The checksum is the CRC-32 of everything before its `_`: a typing error is
told without asking anybody, and a scanner for leaked secrets finds few strings that are no keys.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib

KEY_PATTERN = r"\bck_[0-9A-Za-z]{8}_[0-9A-Za-z]{32}_[0-9A-Za-z]{6}\b"
"""Finds keys in any text: for scanners of repositories and logs."""

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
"""The digits of base 62, by value."""

_PUBLIC, _SECRET, _CHECKSUM = 8, 32, 6
_KEY = re.compile(KEY_PATTERN, re.ASCII)
_PUBLIC_PART = re.compile(r"[0-9A-Za-z]{8}", re.ASCII)


def make_key() -> str:
    """A fresh key, from the operating system's random numbers."""
    return with_checksum(f"ck_{_random(_PUBLIC)}_{_random(_SECRET)}")


def with_checksum(text: str) -> str:
    """A key's first three parts with the checksum that belongs to them."""
    rest, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECKSUM):
        rest, digit = divmod(rest, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return f"{text}_{digits}"


def public_part(key: object) -> str | None:
    """The public part of what has a key's form and a right checksum, else None. Asks nobody."""
    if not (isinstance(key, str) and _KEY.fullmatch(key)):
        return None
    return key.split("_")[1] if with_checksum(key[: -_CHECKSUM - 1]) == key else None


def is_public_part(text: object) -> bool:
    """Whether a text has the form of a key's public part."""
    return isinstance(text, str) and _PUBLIC_PART.fullmatch(text) is not None


def key_digest(key: str) -> str:
    """SHA-256 (hex) of a whole key: what is kept of it."""
    return hashlib.sha256(key.encode()).hexdigest()


def matches(key: str, digest: str) -> bool:
    """Whether a key is the one of this digest, in a time that does not tell how nearly."""
    return hmac.compare_digest(key_digest(key), digest)


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
