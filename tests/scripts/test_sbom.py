"""The bill of materials: what is installed, all of it, in CycloneDX's form, the same bytes each time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest

from tests.pip_environment import SCHEMAS, pip_environment
from tests.places import ROOT

SCRIPT = ROOT / "scripts" / "sbom.py"
_CHECK = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()) or "sound")
"""


def bill(*arguments: str) -> str:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def text() -> str:
    return bill()


def test_everything_that_is_needed_is_there_with_its_version(text: str) -> None:
    document: dict[str, Any] = json.loads(text)
    components = {each["name"]: each for each in document["components"]}
    for name in ("jax", "jaxlib", "numpy", "fastapi", "starlette", "sqlalchemy", "click"):
        assert components[name]["version"] == version(name)
        assert components[name]["purl"] == f"pkg:pypi/{name}@{version(name)}"
    assert document["metadata"]["component"]["name"] == "chorus-prompts"
    assert not {"pytest", "mypy", "ruff"} & set(components)  # the control: what is installed and not needed
    references = {each["bom-ref"] for each in document["components"]}
    references.add(document["metadata"]["component"]["bom-ref"])
    for each in document["dependencies"]:
        assert {each["ref"], *each["dependsOn"]} <= references
    assert {each["ref"] for each in document["dependencies"]} == references
    needed = {need for each in document["dependencies"] for need in each["dependsOn"]}
    assert references - needed == {document["metadata"]["component"]["bom-ref"]}


def test_it_is_the_same_each_time_and_names_no_place(text: str) -> None:
    assert bill() == text
    assert str(ROOT) not in text and sys.prefix not in text


def test_it_fits_the_schema_of_cyclonedx(text: str) -> None:
    broken = text.replace('"type": "library"', '"type": "book"', 1)
    python = pip_environment(SCHEMAS) / "python"
    for document, sound in ((text, True), (broken, False)):
        done = subprocess.run(
            [python, "-c", _CHECK], input=document, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert (done.stdout == "sound\n") is sound, done.stdout


def test_an_extra_adds_what_it_needs(text: str) -> None:
    more = {
        each["name"] for each in json.loads(bill("--extra", "server", "--extra", "parquet"))["components"]
    }
    assert more - {each["name"] for each in json.loads(text)["components"]} == {"pyarrow"}


def test_what_is_not_there_is_a_sentence() -> None:
    for extra in ("nothing", "tpu"):
        done = subprocess.run(
            [sys.executable, SCRIPT, "--extra", extra], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("sbom: "), done.stderr


def test_the_command_for_the_image_names_all_its_extras() -> None:
    (more,) = re.findall(r"\[\$extra,([a-z,]+)\]", (ROOT / "Dockerfile").read_text())
    told = set(re.findall(r"--extra ([a-z]+)", (ROOT / "SECURITY.md").read_text()))
    assert told == {"server", *more.split(",")}
