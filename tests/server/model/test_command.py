"""The options that every command on models shares."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from chorus_server.model.command import DTYPES, Spelled
from chorus_server.pretraining.options import settings_options


@click.command()
@click.option("--dtype", type=Spelled(DTYPES), default="f32", show_default=True)
def echo(dtype: str) -> None:
    click.echo(dtype)


@pytest.mark.parametrize(
    ("given", "read"), [("f32", "float32"), ("bf16", "bfloat16"), ("bfloat16", "bfloat16")]
)
def test_a_type_is_read_by_either_of_its_names(given: str, read: str) -> None:
    assert CliRunner().invoke(echo, ["--dtype", given]).stdout == f"{read}\n"
    assert CliRunner().invoke(echo, []).stdout == "float32\n"


def test_another_type_is_refused_with_those_that_there_are() -> None:
    result = CliRunner().invoke(echo, ["--dtype", "f16"])
    assert result.exit_code == 2 and "'f16' is not one of f32, bf16." in result.output
    assert "[f32|bf16]" in CliRunner().invoke(echo, ["--help"]).stdout


def test_pretraining_spells_type_and_attention_as_serving_does() -> None:
    @click.command()
    @settings_options({})
    def show(compute_dtype: str, attention: str, **_: object) -> None:
        click.echo(f"{compute_dtype} {attention}")

    def said(*arguments: str) -> str:
        return CliRunner().invoke(show, arguments).stdout.strip()

    assert said() == said("--attention", "dense") == "float32 dense"
    assert said("--compute-dtype", "bf16", "--attention", "xla") == "bfloat16 dense"
