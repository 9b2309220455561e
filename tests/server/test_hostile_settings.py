"""Whatever a setting is given, a start ends with one sentence that names it, before a model is loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner

from chorus.cli.root import chorus
from chorus_server.app import build_app, close_app
from chorus_server.cli import serve
from chorus_server.embedded import embedded_folder
from chorus_server.engine.scheduler.journal import Journal
from chorus_server.errors import ChorusError, InvalidInputError, startup_message
from chorus_server.process import Process, listen
from chorus_server.settings import Settings, flag_of, load_settings, variable_of
from chorus_server.storage import open_storage
from chorus_server.tenancy.keys import MAX_KEY_CHARACTERS
from chorus_server.worker_cli import WORKER_SETTINGS, worker
from prompts_store.errors import StoreError

CHORUS = Path(sys.executable).parent / "chorus"
VALUES = (
    "inf", "-inf", "nan", "-1", "1e400", "1e300", "1" + 30 * "0", 5000 * "9", "", "\0", "a\0b", "a\nb",
    "\udcff",
)  # fmt: skip
"""No setting but a list, a name or a path can be one of these."""
PLACES = (
    "{dir}",
    "{file}",
    "{file}/below",
    "/proc/nothing/x",
    "/dev/full",
    "/dev/zero",
    5000 * "x",
    "~/x",
    "x y",
)
"""Real places that hold for root, too."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable_of(name), raising=False)
    monkeypatch.delenv("CHORUS_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "dir").mkdir()


def told(error: ChorusError | StoreError, name: str) -> str:
    """The sentence; it is one, short, and names the setting."""
    assert error.field is not None and error.field.split(".")[0] == name, (name, error.field, error.message)
    text = startup_message(error)
    assert name in text and len(text.splitlines()) == 1 and text.isprintable() and len(text) < 1000, text
    return text


def holds_text(name: str) -> bool:
    """Whether a setting is a text or a path, or a list of them."""
    kind = Settings.model_fields[name].annotation
    return bool({str, Path} & {kind, *get_args(kind)})


def test_a_hostile_value_is_a_sentence_or_a_value(tmp_path: Path) -> None:
    """Every setting with every value: a clear refusal, or settings that hold it."""
    refused = 0
    for name in Settings.model_fields:
        for value in VALUES:
            try:
                load_settings({"insecure_bind": "true", name: value})
            except InvalidInputError as error:
                told(error, name)
                refused += 1
            else:
                assert holds_text(name) or value.isdigit() or value == "", (name, value)
    assert refused > 10 * len(Settings.model_fields)


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if holds_text(name)])
def test_a_hostile_place_is_a_sentence_before_a_model_is_loaded(name: str, tmp_path: Path) -> None:
    for pattern in PLACES:
        value = pattern.format(dir=tmp_path / "dir", file=tmp_path / "file")
        given = {
            "model": "embedded",
            "http_port": "0",
            "insecure_bind": "true",
            "data_dir": str(tmp_path / "data"),
        }
        try:
            settings = load_settings(given | {name: value})
            app = build_app(settings)
        except (ChorusError, StoreError) as error:
            told(error, name)
            continue
        try:
            Process(app, lambda line: None)
            listen(settings.http_host, 0).close()
        except InvalidInputError as error:
            told(error, name)
        finally:
            close_app(app)


def _with(name: str, value: Any) -> Settings:
    """Settings that hold a value which nobody looked at."""
    return Settings().model_copy(update={name: value})


REFUSED: dict[str, tuple[str, str, str]] = {
    "a drain without end": ("drain_seconds", "inf", "finite"),
    "a cache below a file": ("compile_cache_dir", "{file}/below", "a file is where a folder must be"),
    "a cache that is a file": ("compile_cache_dir", "{file}", "a file is where a folder must be"),
    "a cache where nothing can be made": ("compile_cache_dir", "/proc/self", "cannot be written"),
    "a journal below a file": ("journal_file", "{file}/below", "a file is where a folder must be"),
    "a journal that is a folder": ("journal_file", "{dir}", "Is a directory"),
    "a journal where nothing can be made": ("journal_file", "/proc/nothing/x", "cannot be written"),
    "data below a file": ("data_dir", "{file}/below", "data folder"),
    "a key that is a folder": ("api_key_file", "{dir}", "Is a directory"),
    "a key without end": ("api_key_file", "/dev/zero", f"{MAX_KEY_CHARACTERS}"),
    "a tenant that is no name": ("tenant", "No Name", "is not a name"),
    "a database URL with a port of letters": ("database_url", "postgresql://u:p@h:x/n", "postgresql://USER"),
    "a database URL with an odd argument": ("database_url", "sqlite:///{dir}/f?timeout=x", "sqlite:///FILE"),
    "a pair that is none": ("decision_models", "jev-latest", "pairs"),
    "a name given twice": ("decision_models", "a=x,a=y", "once"),
    "a beginning of a URL that is none": ("tuning_data_urls", "host/folder", "must begin with http"),
    "a host that no socket takes": ("http_host", "a..b", "that is not a host name"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_the_command_ends_with_the_sentence(what: str, tmp_path: Path) -> None:
    name, pattern, words = REFUSED[what]
    value = pattern.format(dir=tmp_path / "dir", file=tmp_path / "file")
    flags = ["--data-dir", str(tmp_path / "data"), "--port", "0", "--insecure-bind"]
    commands = [(serve, [*flags, flag_of(name), value])]
    if name in WORKER_SETTINGS:
        commands.append((worker, ["--data-dir", str(tmp_path / "data"), flag_of(name), value]))
    for command, arguments in commands:
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 1 and result.exception.__class__ is SystemExit, result.output
        assert result.output.startswith("Error: ") and len(result.output.splitlines()) == 1, result.output
        assert words in result.output and name in result.output, result.output
        assert "loading" not in result.output


def _process(settings: Settings) -> None:
    app = build_app(settings)
    try:
        Process(app, lambda line: None)
    finally:
        close_app(app)


CONTROLS: dict[str, tuple[type[Exception], Callable[[Path], object]]] = {
    "a cache below a file": (OSError, lambda folder: (folder / "file" / "below").mkdir(parents=True)),
    "a journal below a file": (OSError, lambda folder: Journal(folder / "file" / "below")),
    "a NUL in a path": (ValueError, lambda folder: open_storage(_with("data_dir", Path("a\0b")))),
}  # fmt: skip


@pytest.mark.parametrize("what", CONTROLS)
def test_the_controls_are_tracebacks(what: str, tmp_path: Path) -> None:
    """What each would be, did nobody look first."""
    kind, attempt = CONTROLS[what]
    with pytest.raises(kind):
        attempt(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["[http]\ndrain_seconds = inf", "[http]\ndrain_seconds = nan", "x = " + 5000 * "[", "\xff"],
)
def test_a_hostile_file_is_a_sentence(content: str, tmp_path: Path) -> None:
    file = tmp_path / "chorus.toml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidInputError) as caught:
        load_settings({}, file)
    assert caught.value.field in ("config", "drain_seconds")


@pytest.mark.parametrize(
    "place", ["{dir}", "{file}/below", "/dev/zero", "/proc/self/mem", 5000 * "x", "a\0b", ""]
)
def test_a_settings_file_that_is_none_is_a_sentence(place: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_settings({}, Path(place.format(dir=tmp_path / "dir", file=tmp_path / "file")))
    assert caught.value.field == "config"


def test_a_password_in_a_url_is_not_repeated(tmp_path: Path) -> None:
    for flags in (
        {"tuning_data_urls": "https://user:canary@host/"},
        {"database_url": "postgresql://user:canary@host:x/name"},
        {"database_url": "postgresql://user:canary\n@host/name"},
    ):
        with pytest.raises((ChorusError, StoreError)) as caught:
            build_app(load_settings({"data_dir": str(tmp_path / "data")} | flags))
        assert "canary" not in startup_message(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--drain-seconds", "inf"],
        ["serve", "--port", "0", "--journal-file", "{file}/below"],
        ["worker", "--compile-cache-dir", "{file}/below"],
        ["worker", "--model", 300 * "x"],
    ],
)  # fmt: skip
def test_a_real_process_ends_so_too(arguments: list[str], tmp_path: Path) -> None:
    assert embedded_folder() is not None
    line = [each.format(file=tmp_path / "file") for each in arguments]
    done = subprocess.run(
        [CHORUS, *line], cwd=tmp_path, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "Error: " in done.stderr.splitlines()[-1], done.stderr


OFFLINE = (
    ["pretrain", "{file}/below", "--corpus", "{file}", "--prepare-only"],
    ["pretrain", "/proc/nothing/x", "--corpus", "{file}", "--prepare-only"],
    ["pretrain", "{dir}", "--corpus", 5000 * "x", "--prepare-only"],
    ["pretrain", "{dir}", "--corpus", "{file}", "--prepare-only", "--max-minutes", "nan"],
    ["pretrain", "{dir}", "--corpus", "{file}", "--prepare-only", "--held-out-share", "nan"],
    ["pretrain", "{dir}", "--corpus", "{file}", "--prepare-only", "--steps", 400 * "9"],
    ["adapt", "{base}", "{file}/below", "--corpus", "{file}"],
    ["models", "convert", "{base}", 5000 * "x"],
    ["models", "describe", "{base}", "--vocabulary", "/dev/zero"],
    ["models", "plan", "--size", "tiny", "--bandwidth", "inf"],
    ["models", "plan", "--size", "tiny", "--slots", 20 * "9"],
)


@pytest.mark.parametrize("arguments", OFFLINE, ids=lambda each: " ".join(word[:20] for word in each))
def test_commands_that_serve_nothing_end_so_too(arguments: list[str], tmp_path: Path) -> None:
    folder = embedded_folder()
    assert folder is not None
    places = {"dir": tmp_path / "dir", "file": tmp_path / "file", "base": folder / "model"}
    result = CliRunner().invoke(chorus, [each.format(**places) for each in arguments])
    assert result.exit_code in (1, 2) and isinstance(result.exception, SystemExit), result.output
    assert result.output.splitlines()[-1].startswith("Error: "), result.output
