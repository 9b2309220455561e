"""docs/artifacts.md is the list that callers see: complete, and nothing beside."""

from __future__ import annotations

import re

from prompts_store.artifacts import FORMATS, REASONS, npy_format, peft_config, safetensors_format, zip_entries
from tests.places import ROOT

PAGE = (ROOT / "docs" / "artifacts.md").read_text()


def test_exactly_the_reasons_are_listed() -> None:
    table = PAGE.split("## Why a file is refused")[1]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [reason.value for reason in REASONS]


def test_every_format_is_described() -> None:
    rows = PAGE.split("## Formats")[1].split("\n\n")[1].lower()
    assert all(f"| {name}" in rows.replace("`.", "") for name in FORMATS)


def test_the_limits_are_those_of_the_code() -> None:
    limits = PAGE.split("## Limits")[1].split("##")[0]
    for number in (
        safetensors_format.MAX_HEADER_BYTES,
        npy_format.MAX_HEADER_BYTES,
        peft_config.MAX_CONFIG_BYTES,
        zip_entries.MAX_ENTRIES,
        zip_entries.MAX_NAME_BYTES,
    ):
        assert f"{number:,}" in limits
