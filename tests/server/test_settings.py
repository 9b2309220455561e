from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from chorus_server import embedded
from chorus_server.cli import serve
from chorus_server.errors import InvalidInputError, startup_message
from chorus_server.reference import CHANGE_FIRST, SETTINGS_FILE
from chorus_server.settings import (
    GROUPS,
    REMOVED,
    Settings,
    check_bind,
    flag_of,
    group_of,
    load_settings,
    variable_of,
)
from chorus_server.settings.values import ShapeChoice
from chorus_server.worker_cli import worker


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable_of(name), raising=False)
    monkeypatch.delenv("CHORUS_CONFIG", raising=False)


def test_a_flag_goes_before_the_environment_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "chorus.toml"
    config.write_text(
        '[http]\nhttp_port = 1\n[engine]\nmodel = "file"\nprompt_rows = 5\nshapes = {blocks = [[16, 8, 4]]}\n'
    )
    assert load_settings(config=config).http_port == 1
    monkeypatch.setenv("CHORUS_HTTP_PORT", "2")
    monkeypatch.setenv("CHORUS_DECISION_MODELS", "a=b, c=d")
    loaded = load_settings({"model": None}, config)
    assert (loaded.model, loaded.http_port, loaded.prompt_rows) == ("file", 2, 5)
    assert (loaded.decision_models, loaded.shapes.blocks) == (("a=b", "c=d"), ((16, 8, 4),))
    assert load_settings({"http_port": "3", "shapes": "small"}, config).shapes.blocks is None
    monkeypatch.setenv("CHORUS_CONFIG", str(config))
    assert load_settings().model == "file"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"model": "x", "http_port": "70000"}, ["http_port", "65535", "70000"]),
        ({"model": "x", "layout": "stacked"}, ["layout", "unrolled", "scanned", "stacked"]),
        ({"model": "x", "shapes": "tiny"}, ["shapes", "auto", "small", "medium", "large", "tiny"]),
        ({"model": "x", "shapes": "blocks=128x64xq"}, ["shapes.blocks", "q"]),
        ({"model": "x", "shapes": "input_lengths="}, ["shapes.input_lengths"]),
        ({"model": "x", "shapes": "small large"}, ["shapes", "preset once"]),
        ({"model": "x", "shapes": "small batch_rows=1, 4"}, ["shapes", "no space within a list"]),
        ({"model": "x", "shapes": "small batch_rowz=1"}, ["shapes", "'batch_rowz'", "batch_rows", "blocks"]),
        ({"model": "x", "shapes": {"batch_rowz": [1]}}, ["shapes", "'batch_rowz'", "batch_rows", "blocks"]),
        ({"model": "x", "shapes": ["small"]}, ["shapes", "'small batch_rows=1,4'"]),
        ({"model": "x", "drain_seconds": "-1"}, ["drain_seconds"]),
        ({"model": "x", "drain_notice_ms": "25000"}, ["drain_notice_ms", "drain_seconds", "25"]),
    ],
)
def test_a_bad_value_is_answered_with_the_valid_ones(flags: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_settings(flags)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert startup_message(caught.value) == caught.value.message, "it names the setting once"


def test_shapes_are_a_preset_with_lists_in_place_of_its_own(tmp_path: Path) -> None:
    text = "small input_lengths=64,128 blocks=128x64x16,256x64x8 decode_tokens_per_dispatch=8"
    shapes = load_settings({"shapes": text}).shapes
    assert (shapes.preset, shapes.input_lengths, shapes.batch_rows) == ("small", (64, 128), None)
    assert (shapes.blocks, shapes.decode_tokens_per_dispatch) == (((128, 64, 16), (256, 64, 8)), 8)
    assert str(shapes) == text and str(ShapeChoice()) == "auto"
    config = tmp_path / "chorus.toml"
    config.write_text(
        'engine.shapes = {preset = "small", input_lengths = [64, 128], blocks = ["128x64x16", [256, 64, 8]], '
        "decode_tokens_per_dispatch = 8}\n"
    )
    assert load_settings(config=config).shapes == shapes


@pytest.mark.parametrize(("longest", "default"), [(600, 60), (3600, 360), (90, 60), (5, 5)])
def test_a_request_without_a_deadline_gets_a_tenth_and_at_least_a_minute(longest: int, default: int) -> None:
    assert load_settings({"max_deadline_seconds": longest}).default_deadline_seconds == default


def test_each_group_of_the_file_is_read(tmp_path: Path) -> None:
    defaults = Settings()
    for group, members in GROUPS.items():
        config = tmp_path / f"{group}.toml"
        names = [name for name in members.model_fields if type(getattr(defaults, name)) in (int, float, bool)]
        values = {name: _another(getattr(defaults, name)) for name in names}
        lines = [f"{name} = {str(value).lower()}" for name, value in values.items()]
        config.write_text("\n".join([f"[{group}]", *lines]))
        loaded = load_settings(config=config, listening=False)
        assert names and {name: getattr(loaded, name) for name in names} == values


def _another(value: float) -> float:
    return not value if isinstance(value, bool) else value / 2 if isinstance(value, float) else value + 1


def test_every_setting_is_of_one_group() -> None:
    names = [name for members in GROUPS.values() for name in members.model_fields]
    assert sorted(names) == sorted(Settings.model_fields)
    assert {name: group_of(name) for name in names} == {
        name: group for group, members in GROUPS.items() for name in members.model_fields
    }


def test_a_name_of_the_file_without_its_group_is_told_its_place(tmp_path: Path) -> None:
    config = tmp_path / "chorus.toml"
    for name in Settings.model_fields:
        config.write_text(f"{name} = 1\n")
        with pytest.raises(InvalidInputError) as caught:
            load_settings(config=config)
        assert caught.value.message.endswith(f": write {name} under [{group_of(name)}].")
    config.write_text('http_port = 1\nmodel = "x"\n[store]\nmax_body_bytes = 3\ndata_dir = "y"\n')
    with pytest.raises(InvalidInputError) as caught:
        load_settings(config=config)
    assert caught.value.message == (
        f"In the settings file {config}: write http_port under [http]; write model under [engine]; "
        "write max_body_bytes under [limits]."
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 1\n", "'colour' is neither a setting nor a group; the groups are [http], [engine], "),
        ("[colour]\nhttp_port = 1\n", "'colour' is neither a setting nor a group"),
        ("[http]\ncolour = 1\n", "'colour' is neither a setting nor a group"),
        ("[http.http_port]\nx = 1\n", "http_port"),
        ("http = 1\n", "write [http] on a line of its own"),
        ("[[http]]\nhttp_port = 1\n", "write [http] on a line of its own"),
        ('["a\\nb"]\n', r"'a\nb' is neither a setting"),
    ],
)
def test_what_is_no_setting_of_the_file_is_told(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "chorus.toml"
    config.write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        load_settings(config=config)
    assert words in caught.value.message and len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize("text", ["model = \n", "\x00"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, text: str) -> None:
    config = tmp_path / "chorus.toml"
    config.write_text(text)
    with pytest.raises(InvalidInputError):
        load_settings({"model": "x"}, config)
    with pytest.raises(InvalidInputError, match="does not exist"):
        load_settings({"model": "x"}, tmp_path / "absent.toml")


def test_a_setting_that_is_gone_is_told_wherever_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "chorus.toml"
    for name in REMOVED:
        told = f"{name} is not a setting any more: {REMOVED[name]}."
        assert name not in Settings.model_fields
        for text in (f"{name} = 1\n", f"[engine]\n{name} = 1\n"):
            config.write_text(text)
            with pytest.raises(InvalidInputError) as caught:
                load_settings(config=config)
            assert caught.value.message.endswith(told)
        with monkeypatch.context() as patch:
            patch.setenv(variable_of(name), "1")
            with pytest.raises(InvalidInputError) as caught:
                load_settings()
        there = f"{name} is not a setting any more, and {variable_of(name)} is set: {REMOVED[name]}."
        assert (startup_message(caught.value), caught.value.field) == (there, name)
        with pytest.raises(InvalidInputError) as caught:
            load_settings({name: "1"})
        assert (startup_message(caught.value), caught.value.field) == (told, name)
        for command in (serve, worker):
            result = CliRunner().invoke(command, [flag_of(name), "1"])
            assert result.exit_code == 2 and result.output.endswith(f"Error: {told}\n")
    assert "not a setting any more" in CliRunner().invoke(serve, ["--no-demo-prompts"]).output
    assert "No such option" in CliRunner().invoke(serve, ["--colour"]).output, "control"


def test_all_settings_that_are_gone_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=r"^blocks is not .*; colour is not a setting\.$"):
        load_settings({"blocks": "1", "colour": "1"})
    for name in ("blob_region", "blob_endpoint"):
        monkeypatch.setenv(variable_of(name), "1")
    with pytest.raises(InvalidInputError, match=r"CHORUS_BLOB_ENDPOINT .*; .* CHORUS_BLOB_REGION "):
        load_settings()


def test_a_variable_that_is_no_setting_is_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHORUS_COLOUR", "1")
    monkeypatch.setenv(variable_of("text_threads"), "")
    assert load_settings() == Settings()


def test_settings_are_frozen() -> None:
    loaded = load_settings({"model": "x"})
    with pytest.raises(ValidationError):
        loaded.model = "y"  # type: ignore[misc]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert load_settings({"model": "x", "http_host": host}).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "chorus.example"])
def test_any_other_address_needs_a_key_or_an_insecure_bind(host: str) -> None:
    flags = {"model": "x", "http_host": host}
    with pytest.raises(InvalidInputError) as caught:
        check_bind(load_settings(flags), keyed=False)
    assert caught.value.field == "http_host" and "--insecure-bind" in caught.value.message
    check_bind(load_settings(flags | {"insecure_bind": True}), keyed=False)
    check_bind(load_settings(flags), keyed=True)


def test_every_setting_is_described_and_names_its_unit() -> None:
    units = "bytes ms seconds rows requests port devices days"
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith("."), name
        if field.annotation is int:
            assert any(f"_{part}" in f"_{name}" for part in units.split()), name


def test_help_names_every_flag_and_variable() -> None:
    text = "".join(CliRunner().invoke(serve, ["--help"], terminal_width=10_000).output.split())
    for name in Settings.model_fields:
        assert flag_of(name) in text and variable_of(name) in text, name


def test_help_shows_the_options_by_group() -> None:
    for command, groups in ((serve, list(GROUPS)), (worker, ["http", "engine", "store", "tuning", "log"])):
        text = CliRunner().invoke(command, ["--help"], terminal_width=200).output
        assert re.findall(r"^\[(\w+)\] .*:$", text, re.M) == groups
        _, *sections = re.split(r"^\[\w+\] .*:$", text, flags=re.M)
        for group, section in zip(groups, sections, strict=True):
            variables = re.findall(r"\[(CHORUS_\w+)", section)
            assert variables and set(variables) <= {variable_of(name) for name in GROUPS[group].model_fields}
        assert "CHORUS" not in text.partition("Options:")[0] and "--config PATH" in text


def test_the_example_of_the_docs_is_a_settings_file(tmp_path: Path) -> None:
    config = tmp_path / "chorus.toml"
    config.write_text(SETTINGS_FILE)
    loaded = load_settings(config=config)
    assert loaded.http_host == "0.0.0.0" and loaded.data_dir == Path("/var/lib/chorus")
    assert {name for members in tomllib.loads(SETTINGS_FILE).values() for name in members} == set(
        loaded.model_fields_set
    )
    assert CHANGE_FIRST.keys() <= Settings.model_fields.keys() and 5 <= len(CHANGE_FIRST) <= 8


def test_the_command_ends_with_one_sentence_for_a_bad_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "PLACES", ())  # else no model named is the one that ships
    runner = CliRunner()
    for arguments in (
        [],
        ["--model", "x", "--host", "0.0.0.0"],
        ["--model", "x", "--api-key-file", str(tmp_path / "absent"), "--data-dir", str(tmp_path)],
        ["--model", "x", "--shapes", "blocks=8x8x8", "--data-dir", str(tmp_path)],
    ):
        result = runner.invoke(serve, arguments)
        assert result.exit_code == 1, result.output
        assert "Traceback" not in result.output and "Error: " in result.output
