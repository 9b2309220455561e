"""Writes a bill of materials (CycloneDX 1.6, JSON) of Chorus as it is installed here.

    python scripts/sbom.py > sbom.json                     the server, with what it needs
    python scripts/sbom.py --extra cuda --extra otel       with other extras
    /opt/chorus/bin/python scripts/sbom.py                 of another environment: run it with its Python

It reads the metadata of what is installed, and asks nobody. The same environment gives the same bytes.
An extra that is not installed, or a requirement that is missing, ends it with a sentence and exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "chorus-prompts"
NAMESPACE = uuid.UUID("7d1c1f0e-6c1b-5e0a-9d55-4f3f6f0a6c11")
"""Serial numbers are made from the content within it."""


class MissingError(Exception):
    """Something that is needed is not installed."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--extra", action="append", help="of chorus-prompts; `server` if none is given")
    try:
        document = bill(parser.parse_args().extra or ["server"])
    except MissingError as error:
        sys.stderr.write(f"sbom: {error}\n")
        return 1
    sys.stdout.write(json.dumps(document, indent=1, sort_keys=True) + "\n")
    return 0


def bill(extras: Iterable[str]) -> dict[str, Any]:
    """The document.

    Raises:
        MissingError: something is not installed.
    """
    needs = closure(extras)
    component, *components = [_component(installed(name)) for name in needs]
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component | {"type": "application"}},
        "components": sorted(components, key=lambda each: str(each["bom-ref"])),
        "dependencies": sorted(
            (
                {
                    "ref": _reference(installed(name)),
                    "dependsOn": sorted(map(_reference, map(installed, wants))),
                }
                for name, wants in needs.items()
            ),
            key=lambda each: str(each["ref"]),
        ),
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps(document, sort_keys=True))
    return document | {"serialNumber": f"urn:uuid:{serial}"}


def closure(extras: Iterable[str]) -> dict[str, set[str]]:
    """The names of Chorus, which is first, and of all that it needs, each with what it needs itself.

    Raises:
        MissingError: Chorus has no such extra, or something is not installed.
    """
    wanted = set(extras)
    unknown = wanted - set(installed(ROOT).metadata.get_all("Provides-Extra") or ())
    if unknown:
        raise MissingError(f"{ROOT} as installed here has no extra {', '.join(sorted(unknown))}")
    asked: dict[str, set[str]] = {ROOT: wanted}
    found: dict[str, set[str]] = {ROOT: set()}
    left = [ROOT]
    while left:
        name = left.pop()
        for requirement in _requirements(installed(name), asked[name]):
            need = canonicalize_name(requirement.name)
            if need != name:  # an extra may name another extra of the same
                found[name].add(need)
            known = asked.setdefault(need, set())
            if need not in found or not requirement.extras <= known:
                known |= requirement.extras
                found.setdefault(need, set())
                left.append(need)
    return found


def installed(name: str) -> Distribution:
    """Raises MissingError."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise MissingError(f"{name} is needed and not installed") from None


def _requirements(of: Distribution, extras: set[str]) -> Iterable[Requirement]:
    for text in of.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def _component(of: Distribution) -> dict[str, Any]:
    name = canonicalize_name(of.metadata["Name"])
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _reference(of),
        "name": name,
        "version": of.version,
        "purl": _reference(of),
    }
    if summary := of.metadata["Summary"]:
        component["description"] = summary
    if licence := _licence(of):
        component["licenses"] = [licence]
    return component


def _reference(of: Distribution) -> str:
    return f"pkg:pypi/{canonicalize_name(of.metadata['Name'])}@{of.version}"


def _licence(of: Distribution) -> dict[str, Any] | None:
    """An SPDX expression where the distribution has one, else what it calls its licence."""
    if expression := of.metadata.get("License-Expression"):
        return {"expression": expression}
    classifiers = [each for each in of.metadata.get_all("Classifier") or () if each.startswith("License ::")]
    named = classifiers[0].rpartition(" :: ")[2] if classifiers else ""
    words = named or (of.metadata.get("License") or "").strip().split("\n")[0]
    return {"license": {"name": words[:120]}} if words else None


if __name__ == "__main__":
    sys.exit(main())
