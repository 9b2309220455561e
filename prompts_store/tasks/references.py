"""References: how a request names a version of a task or of an ensemble."""

from __future__ import annotations

import re

from prompts_store.errors import InvalidError
from prompts_store.names import LIVE, check_alias, check_name
from prompts_store.records import Reference
from prompts_store.text import shown

# A version number fits a signed 32-bit column.
MAX_VERSION = 2**31 - 1

_NUMBER = re.compile(r"[0-9]+", re.ASCII)
_FORM = "write 'task', 'tenant/task', 'tenant/task@3' or 'tenant/task@alias'"


def parse_reference(text: str, *, tenant: str, field: str = "task") -> Reference:
    """Parse `[tenant/]name[@number | @alias]`. Without a suffix it means `@live`.

    Args:
        tenant: the tenant, if the text does not name one.
        field: the field that held the text, for the error.

    Raises:
        InvalidError: `invalid_reference`; the message shows the form.
    """
    if not isinstance(text, str):
        raise _invalid(f"A reference must be a text, not {type(text).__name__}", field)
    path, at, suffix = text.partition("@")
    owner, slash, name = path.rpartition("/")
    try:
        owner = check_name(owner, field=field) if slash else tenant
        name = check_name(name, field=field)
        if not at:
            return Reference(owner, name)
        if _NUMBER.fullmatch(suffix):
            return Reference(owner, name, version=_number(suffix, field), alias=None)
        return Reference(owner, name, alias=check_alias(suffix, field=field))
    except InvalidError as error:
        raise _invalid(f"{shown(text)} is not a reference", field) from error


def check_version(number: object, *, field: str = "version") -> int:
    """Return a version number if it is 1 or more.

    Raises:
        InvalidError: `invalid_version`, with `field`.
    """
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MAX_VERSION:
        return number
    raise InvalidError(
        f"{shown(number)} is not a version number; versions are counted 1, 2, 3, ...",
        field=field,
        code="invalid_version",
    )


def format_reference(reference: Reference) -> str:
    """The full text of a reference: `tenant/task@suffix`."""
    suffix = reference.version if reference.version is not None else reference.alias or LIVE
    return f"{reference.tenant}/{reference.task}@{suffix}"


def _number(digits: str, field: str) -> int:
    if len(digits) > 10 or (digits.startswith("0")):
        raise InvalidError("not a version number", field=field)
    return check_version(int(digits), field=field)


def _invalid(what: str, field: str) -> InvalidError:
    return InvalidError(
        f"{what}: {_FORM}; names have lower-case letters, digits, '.', '_' and '-'.",
        field=field,
        code="invalid_reference",
    )


def parsed_reference(reference: str | Reference, tenant: str, field: str) -> Reference:
    """A reference in either form, checked and parsed.

    Raises:
        InvalidError: `invalid_reference`, or the code for a bad name.
    """
    check_name(tenant, field="tenant")
    if isinstance(reference, str):
        return parse_reference(reference, tenant=tenant, field=field)
    check_name(reference.tenant, field=field)
    check_name(reference.task, field=field)
    if reference.version is not None:
        check_version(reference.version, field=field)
    else:
        check_alias(reference.alias, field=field)
    return reference
