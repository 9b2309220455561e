"""From references, as people write them, to path segments."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from chorus.errors import InvalidArgumentError
from chorus.types.tuning import AnyJob


@dataclass(frozen=True, slots=True)
class Named:
    """The parts of a reference `tenant/name@suffix`, in which `suffix` is a version number or an alias."""

    tenant: str | None
    name: str
    suffix: str | None

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """The query pair that names another tenant."""
        return () if self.tenant is None else (("tenant", self.tenant),)


def job_path(root: str, job: str | AnyJob, *rest: str) -> str:
    """The path of a job, given as it is or by its id, or of what is below it.

    Raises:
        InvalidArgumentError: that is no id.
    """
    name = job.id if isinstance(job, AnyJob) else job
    return "/".join((root, segment(name, "job"), *rest))


def segment(value: str, field: str) -> str:
    """Percent-encode one path segment.

    Raises:
        InvalidArgumentError: it is empty, or would change the path.
    """
    if not isinstance(value, str) or value in ("", ".", "..") or "/" in value or "\\" in value:
        raise InvalidArgumentError(
            f"{value!r} is not a name: it must be one word without slashes.", field=field
        )
    try:
        return quote(value, safe="")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{value!r} is not a name: it is not Unicode text.", field=field
        ) from error


def parse(reference: str, field: str = "task") -> Named:
    """Split a reference into its parts.

    Raises:
        InvalidArgumentError: it is not `name`, `tenant/name`, `name@version` or `name@alias`.
    """
    if not isinstance(reference, str):
        raise InvalidArgumentError(
            f"A reference is text such as acme/sst2@3, not {reference!r}.", field=field
        )
    body, at, suffix = reference.partition("@")
    tenant, slash, name = body.rpartition("/")
    if (at and not suffix) or (slash and not tenant):
        raise InvalidArgumentError(f"{reference!r} is not a reference such as acme/sst2@3.", field=field)
    for part in filter(None, (tenant, name or "", suffix)):
        segment(part, field)
    segment(name, field)
    return Named(tenant or None, name, suffix or None)


def parse_whole(reference: str, field: str = "task") -> Named:
    """Split a reference to a whole task or ensemble: deleting `sst2@3` must not delete `sst2`.

    Raises:
        InvalidArgumentError: it names a version, or is not a reference.
    """
    named = parse(reference, field)
    if named.suffix is not None:
        raise InvalidArgumentError(
            f"{reference!r} names a version; give the {field} without one.", field=field
        )
    return named


def version_number(version: int | str, field: str = "version") -> int:
    """A version's number.

    Raises:
        InvalidArgumentError: it is not a whole number of 1 or more.
    """
    if isinstance(version, str) and version.isascii() and version.isdigit():
        version = int(version)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InvalidArgumentError(f"{version!r} is not a version: versions are 1, 2, ...", field=field)
    return version
