import hashlib
import re

import pytest

from prompts_store.tenants.key_format import (
    ALPHABET,
    KEY_PATTERN,
    is_public_part,
    key_digest,
    make_key,
    matches,
    public_part,
    with_checksum,
)

KNOWN = "ck_00000000_" + "0" * 32


def test_a_key_has_its_form_and_its_checksum() -> None:
    for _ in range(200):
        key = make_key()
        assert re.fullmatch(r"ck_[0-9A-Za-z]{8}_[0-9A-Za-z]{32}_[0-9A-Za-z]{6}", key)
        assert public_part(key) == key[3:11] and is_public_part(key[3:11])


def test_the_checksum_is_crc_32_in_base_62() -> None:
    """The CRC worked out bit by bit, and the digits read back."""
    for text in (KNOWN, "ck_AbCd1234_" + "zY9" * 10 + "xx"):
        crc = 0xFFFFFFFF
        for byte in text.encode():
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
        value = 0
        for digit in with_checksum(text).removeprefix(f"{text}_"):
            value = 62 * value + ALPHABET.index(digit)
        assert value == crc ^ 0xFFFFFFFF


def test_keys_are_random_in_every_place() -> None:
    keys = [make_key() for _ in range(400)]
    assert len({key[3:11] for key in keys}) == len({key[12:44] for key in keys}) == len(keys)
    for place in (*range(3, 11), *range(12, 44)):
        assert len({key[place] for key in keys}) > 40, "of 62"


def test_one_wrong_character_anywhere_is_told() -> None:
    key = make_key()
    for i, right in enumerate(key):
        for wrong in "0aZ_ é":
            if wrong != right:
                assert public_part(key[:i] + wrong + key[i + 1 :]) is None
    swapped = key[:13] + key[14] + key[13] + key[15:]
    assert public_part(swapped) is None or swapped == key


@pytest.mark.parametrize(
    "wrong", ["", "ck_", None, 7, b"ck_", "CK", "ck_short_short_short", f"{with_checksum(KNOWN)}\n"]
)
def test_what_is_no_key_is_told(wrong: object) -> None:
    assert public_part(wrong) is None
    assert not is_public_part(wrong)


def test_whitespace_and_case_are_part_of_a_key() -> None:
    key = with_checksum("ck_abcdefgh_" + "a" * 32)
    assert public_part(key) == "abcdefgh"
    for wrong in (f" {key}", f"{key} ", key.upper(), key.swapcase()):
        assert public_part(wrong) is None


def test_the_published_pattern_finds_keys_in_text_and_little_else() -> None:
    key = make_key()
    found = re.findall(KEY_PATTERN, f'api_key = "{key}"\nx{key} {key}x ck_a_b_c {key}')
    assert found == [key, key]


def test_a_key_is_kept_by_its_sha_256() -> None:
    key, other = make_key(), make_key()
    assert key_digest(key) == hashlib.sha256(key.encode()).hexdigest()
    assert matches(key, key_digest(key)) and not matches(other, key_digest(key))
