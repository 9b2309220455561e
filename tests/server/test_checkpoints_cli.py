"""`chorus models`: answers for people, JSON for programs, one sentence for errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chorus_server.checkpoints_cli import models
from tests.places import FIXTURES


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHORUS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(models, [str(argument) for argument in arguments])


def answer(*arguments: str | Path) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.mark.parametrize(
    ("size", "parameters", "percent_at_100"),
    [
        ("small", 76_961_152, 0.06648),
        ("base", 247_577_856, 0.03101),
        ("large", 783_150_080, 0.01307),
        ("xl", 2_849_757_184, 0.00719),
        ("xxl", 11_135_332_352, 0.00368),
    ],
)
def test_describe_prints_table_4(size: str, parameters: int, percent_at_100: float) -> None:
    document = answer("describe", size)
    assert document["parameters"] == parameters
    rows = document["prompts"]
    assert [row["length"] for row in rows] == [1, 5, 20, 50, 100, 150]
    width = document["architecture"]["d_model"]
    for row in rows:
        assert row["prompt_parameters"] == row["length"] * width
        assert row["total_parameters"] == parameters + row["prompt_parameters"]
    assert rows[4]["trainable_percent"] == pytest.approx(percent_at_100, abs=6e-6)
    text = run("describe", size).stdout
    assert f"{parameters:,}" in text
    assert f"{percent_at_100:.5f}" in text


def test_describe_a_checkpoint_tells_its_fingerprint() -> None:
    document = answer("describe", FIXTURES / "parity" / "t5_1_1")
    assert document["format"] == "huggingface"
    assert document["fingerprint"] in run("describe", FIXTURES / "parity" / "t5_1_1").stdout
    assert (
        document["fingerprint"] == answer("fingerprint", FIXTURES / "checkpoints" / "t5x_own")["fingerprint"]
    )


@pytest.mark.parametrize("to", ["orbax", "hf", "t5x"])
def test_init_convert_fingerprint(tmp_path: Path, to: str) -> None:
    made = answer("init", "--size", "tiny", "--seed", "3", "--to", to, tmp_path / "a")
    again = answer("init", "--size", "tiny", "--seed", "3", "--to", to, tmp_path / "b")
    other = answer("init", "--size", "tiny", "--seed", "4", "--to", to, tmp_path / "c")
    assert made["fingerprint"] == again["fingerprint"] != other["fingerprint"]
    size = ("--vocab-size", "163")
    how = ("--to", "t5x", "--dtype", "bf16", "--without-vocabulary", *size)
    written = answer("convert", tmp_path / "a", tmp_path / "d", *how)
    known = answer("fingerprint", tmp_path / "d", "--verify", *size)
    assert known["fingerprint"] == written["fingerprint"]


def test_convert_reads_torch_files(tmp_path: Path) -> None:
    source = FIXTURES / "checkpoints" / "tied_bf16"
    result = run("convert", source, tmp_path / "m", "--without-vocabulary")
    assert result.exit_code == 0
    expected = answer("fingerprint", source / "expected")["fingerprint"]
    assert f"Fingerprint {expected}" in result.stdout


@pytest.mark.parametrize("source", ["parity/t5_1_1", "checkpoints/tied_bf16", "checkpoints/t5x_own"])
def test_convert_asks_for_the_vocabulary(tmp_path: Path, source: str) -> None:
    """Named when it is converted, not when it is served days later."""
    result = run("convert", FIXTURES / source, tmp_path / "m")
    assert result.exit_code == 1
    assert f"{FIXTURES / source} has no spiece.model" in result.stderr
    assert "--vocabulary" in result.stderr
    assert list(tmp_path.iterdir()) == []
    assert answer("convert", FIXTURES / source, tmp_path / "m", "--without-vocabulary")["format"] == "orbax"
    # What was made without one on purpose may be written again.
    assert answer("convert", tmp_path / "m", tmp_path / "n")["format"] == "orbax"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("describe", "nowhere"), "Error: there is no model folder nowhere"),
        (("fingerprint", FIXTURES / "checkpoints" / "tied_bf16"), "the server never reads"),
        (("fingerprint", FIXTURES), "has no checkpoint that Chorus can read"),
        (("init", "--size", "tiny", FIXTURES), "exists already"),
    ],
)
def test_errors_are_one_sentence(arguments: tuple[Any, ...], sentence: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_every_command_explains_itself() -> None:
    for name in models.commands:
        result = run(name, "--help")
        assert result.exit_code == 0
        assert "--json" in result.output
