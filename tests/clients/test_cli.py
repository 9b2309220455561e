"""The command, driven as people drive it, against a real socket."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from chorus.cli import offered, root, tenants
from chorus.cli.output import clean, sentence
from chorus.errors import NotFoundError
from tests.clients.conftest import Run
from tests.clients.fake_chorus import FakeChorus, on_loopback, refuse
from tests.places import ROOT


@pytest.fixture
def prompt(tmp_path: Path) -> str:
    file = tmp_path / "prompt.safetensors"
    file.write_bytes(b"values")
    return str(file)


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_prompt_from_push_to_rollback(run: Run, prompt: str, tmp_path: Path, fake: FakeChorus) -> None:
    pushed = run("tasks", "push", "sst2", prompt, "--label", "no", "--label", "yes", "--settings", '{"n": 1}')
    assert pushed.stdout == "default/sst2@1 created, now live\n"
    assert pushed.stderr == "note: as it was\n"
    assert "was there already" in run("tasks", "push", "sst2", prompt, "--label", "no", "--label", "yes",
                                      "--settings", '{"n": 1}').stdout  # fmt: skip
    assert fake.tasks["sst2"][0]["labels"] == ["no", "yes"]

    assert run("tasks", "push", "sst2", prompt, "--template", "a {text}").stdout == "default/sst2@2 created\n"
    assert run("tasks", "promote", "sst2", "2").stdout == "sst2@live is now version 2 (was 1)\n"
    assert run("tasks", "rollback", "sst2").stdout == "sst2@live is now version 1 (was 2)\n"
    assert run("tasks", "promote", "sst2", "2", "--alias", "canary").stdout.endswith("(was new)\n")

    out = tmp_path / "out.npy"
    assert run("tasks", "pull", "sst2@canary", str(out), "--format", "npy").stdout == f"saved to {out}\n"
    assert out.read_bytes() == b"values"

    assert "canary=2" in run("tasks", "list").stdout
    assert "a {text}" in run("tasks", "versions", "sst2").stdout
    assert "sst2@1" in run("tasks", "show", "sst2@live").stdout
    assert "latest" in run("tasks", "show", "sst2").stdout
    assert "▁p0 0.50" in run("tasks", "neighbors", "sst2", "--top-k", "2").stdout
    moves = run("tasks", "aliases", "sst2").stdout
    assert "canary" in moves and "me" in moves
    assert (
        "canary"
        not in json.loads(run("tasks", "aliases", "sst2", "--remove", "canary", "--json").stdout)["aliases"]
    )
    assert run("tasks", "delete", "sst2", lines="n\n").exit_code == 1
    assert run("tasks", "delete", "sst2", "--yes").stdout == "sst2 deleted\n"
    assert run("tasks", "list").stdout == "There are no tasks.\n"


def test_every_verb_speaks_json(run: Run, prompt: str, tmp_path: Path) -> None:
    push = ("tasks", "push", "a", prompt)
    assert set(parsed(run(*push, "--json"))) >= {"task", "version", "digest", "created", "aliases"}
    assert parsed(run("--json", *push))["created"] is False
    run(*push, "--label", "x", "--promote")
    assert [task["task"] for task in parsed(run("tasks", "list", "--json"))["tasks"]] == ["default/a"]
    assert parsed(run("tasks", "show", "a", "--json"))["latest"] == 2
    assert parsed(run("tasks", "show", "a@2", "--json"))["labels"] == ["x"]
    assert [v["version"] for v in parsed(run("tasks", "versions", "a", "--json"))["versions"]] == [2, 1]
    assert parsed(run("tasks", "promote", "a", "1", "--json")) == {
        "alias": "live",
        "version": 1,
        "previous": 2,
    }
    assert parsed(run("tasks", "rollback", "a", "--json"))["version"] == 2
    assert parsed(run("tasks", "aliases", "a", "--json"))["aliases"] == {"live": 2}
    assert len(parsed(run("tasks", "neighbors", "a", "--json"))["rows"][0]["neighbors"]) == 5
    for name, format in (("x", "safetensors"), ("x.npy", "npy")):
        pulled = parsed(run("tasks", "pull", "a", str(tmp_path / name), "--json"))
        assert pulled == {"path": str(tmp_path / name), "format": format}
    assert parsed(run("generate", "a", "hi", "--json"))["results"][0]["text"] == "HI"
    assert parsed(run("classify", "a", "hi", "--json"))["results"][0]["label"] == "yes"
    assert parsed(run("ensemble", "create", "e", "a", "--json"))["version"] == 1
    assert parsed(run("ensemble", "list", "--json"))["ensembles"][0]["ensemble"] == "default/e"
    assert parsed(run("ensemble", "show", "e", "--json"))["vote"] == "majority"
    assert parsed(run("ensemble", "vote", "e", "hi", "--json"))["results"][0]["answer"] == "yes"
    assert parsed(run("ensemble", "delete", "e", "--yes", "--json")) == {"deleted": "e"}
    assert parsed(run("tasks", "delete", "a", "--version", "1", "--yes", "--json")) == {"deleted": "a@1"}
    assert parsed(run("tasks", "delete", "a", "--yes", "--json")) == {"deleted": "a"}
    assert parsed(run("status", "--json"))["model"]["name"] == "tiny"


def every_leaf(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in group.commands.items():
        here = (*path, name)
        found += every_leaf(command, here) if isinstance(command, click.Group) else [(here, command)]
    return found


@pytest.mark.parametrize(("path", "command"), every_leaf(root.chorus), ids=lambda value: str(value))
def test_every_verb_has_the_session_options_and_help(path: tuple[str, ...], command: click.Command) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "--url", "--key-file"} <= options
    assert command.help and command.help.rstrip().endswith((".", ")"))
    shown = CliRunner().invoke(root.chorus, [*path, "--help"])
    assert shown.exit_code == 0 and "Usage: chorus" in shown.output.replace("Usage: chorus ", "Usage: chorus")


def test_generate_for_several_texts_and_standard_input(run: Run, prompt: str, fake: FakeChorus) -> None:
    run("tasks", "push", "a", prompt)
    assert run("generate", "a", "one", "-", lines="two\n\nthree\r\n").stdout == "ONE\nTWO\nTHREE\n"
    assert run("generate", "--base-model", "one").stdout == "ONE\n"
    assert json.loads(fake.seen[-1].content)["task"] is None
    assert run("generate", "a", "--field", "text=x=y", "--seed", "4", "--stop", ".").stdout == "X=Y\n"
    sent = json.loads(fake.seen[-1].content)
    assert sent == {"task": "a", "inputs": [{"text": "x=y"}], "seed": 4, "stop": ["."]}


def test_generate_streams(run: Run) -> None:
    assert run("generate", "--base-model", "hello", "--stream").stdout == "HELLO\n"
    assert run("generate", "--base-model", "one", "two", "--stream").stdout == "[0] ONE\n[1] TWO\n"
    lines = run("generate", "--base-model", "abcd", "--stream", "--json").stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["token", "token", "result", "done"]


def test_a_file_of_mixed_tasks(run: Run, prompt: str, tmp_path: Path, fake: FakeChorus) -> None:
    run("tasks", "push", "a", prompt)
    file = tmp_path / "requests.jsonl"
    lines = [
        {"task": "a", "input": "one"},
        {"task": None, "input": "two", "seed": 1},
        {"task": "a@1", "input": "x"},
    ]
    file.write_text("\n\n".join(map(json.dumps, lines)))
    assert run("generate", "--file", str(file), "--batch-size", "2", "--seed", "9").stdout == "ONE\nTWO\nX\n"
    assert [len(json.loads(r.content)["requests"]) for r in fake.seen[-2:]] == [2, 1]
    sent = json.loads(fake.seen[-2].content)
    assert (sent["seed"], [item.get("seed") for item in sent["requests"]]) == (9, [None, 1])
    file.write_bytes(
        b'\xef\xbb\xbf{"task": "a", "input": "b\xe2\x80\xa8c"}\r\n{"task": "a", "input": "d"}\r\n'
    )
    assert run("generate", "--file", str(file)).exit_code == 0
    assert [item["input"] for item in json.loads(fake.seen[-1].content)["requests"]] == ["b\u2028c", "d"]
    file.write_text('{"task": "nobody", "input": "x"}')
    refused = run("generate", "--file", str(file))
    assert refused.exit_code == 1
    assert "unknown_task in requests.0.task" in refused.stderr and "is line 1" in refused.stderr


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "no request"),
        ("{", "line 1 is not JSON"),
        ('{"input": "a", "input": "b"}', "a key occurs twice"),
        ('{"input": "a", "temperature": NaN}', "NaN is not JSON"),
        ('{"input": "a"}\n[1]', "line 2 must"),
        ("{}", "line 1 must"),
    ],
)
def test_bad_files(run: Run, tmp_path: Path, fake: FakeChorus, content: str, why: str) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text(content)
    result = run("generate", "--file", str(file))
    assert result.exit_code == 2
    assert why in result.stderr
    assert fake.seen == []


def test_a_failed_item_keeps_its_line(run: Run) -> None:
    result = run("generate", "--base-model", "one", "fail", "two")
    assert result.stdout == "ONE\n-\nTWO\n"
    assert result.stderr == "chorus: internal: It broke. [req_1] (input 1)\n"
    assert result.exit_code == 1
    assert run("generate", "--base-model", "one", "fail", "--stream").exit_code == 1
    as_json = run("generate", "--base-model", "one", "fail", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["results"][1]["error"]["code"] == "internal"


def test_classify_and_vote(run: Run) -> None:
    assert (
        run("classify", "a", "x", "--label", "bad", "--label", "good").stdout
        == "good  (bad 0.500, good 0.500)\n"
    )
    vote = run("ensemble", "vote", "--task", "a", "--task", "b", "x", "y")
    assert vote.stdout == "yes  (agreement 100%: yes 2)\n" * 2
    assert (
        run("ensemble", "create", "five", "a", "b", "--weight", "1", "--weight", "0.5").stdout.count(
            "b@1 x 0.5"
        )
        == 1
    )
    assert "five" in run("ensemble", "list").stdout


def test_usage(run: Run) -> None:
    shown = run("usage", "--by", "task", "--by", "month").stdout
    heads = ["start", "task", "items", "tokens", "in", "tokens", "out", "work", "units"]
    assert shown.split()[: len(heads)] == heads
    assert ["2026-11", "acme/sst2", "1200", "7", "3", "10"] in [line.split() for line in shown.splitlines()]
    text = run("usage", "--by", "task", "--by", "day", "--csv").stdout
    assert text.replace("\r", "").splitlines() == [
        "start,task,items,tokens_in,tokens_out,work_units",
        "2026-11-01T00:00:00Z,acme/sst2,1200,7,3,10",
        "2026-11-01T00:00:00Z,,1200,7,3,10",
    ]
    assert run("usage", "--csv").stdout.splitlines()[0] == "items,tokens_in,tokens_out,work_units"
    assert parsed(run("usage", "--json"))["usage"][0]["work_units"] == 10
    assert run("usage", "--by", "week").exit_code == 2
    assert run("usage", "--csv", "--json").exit_code == 2


def test_usage_of_some_tasks_and_the_largest(run: Run, fake: FakeChorus) -> None:
    run("usage", "--by", "task", "--task", "a", "--task", "b", "--top", "3")
    items = [("group_by", "task"), ("task", "a"), ("task", "b"), ("top", "3")]
    assert fake.seen[-1].url.params.multi_items() == items
    assert run("usage", "--top", "0").exit_code == 2


def test_operations(run: Run) -> None:
    shown = " ".join(run("operations").stdout.split())
    for words in (
        "process host process 7", "slots 24 of 32", "prompt rows 400 of 2,048 hold 20 prompts",
        "on the device acme/sst2 20, the base model 4, 3 other tasks 8",
        "last prefill 8 requests of 3 tasks, 19 % padding", "waiting, others 11 of 2 tenants",
        "memory plan 2 of 8 MiB", "programs 24 in 3.1 s, 20 from the cache", "store works", "acme 30 2100",
        "store check 2026-01-01 00:01 missing_blob 12",
        "job-1 tuning acme", "host process 7 jobs 1 yes",
        # The first five minutes: the sum of 0 to 29, and of each the worst.
        "2026-01-01 00:04 435 30 60 200 700 2929 24",
    ):  # fmt: skip
        assert words in shown, words
    short = run("operations", "--minutes", "0").stdout
    assert "answered" not in short and "slots" in short
    assert len(parsed(run("operations", "--json"))["hour"]) == 360


def test_status(run: Run, fake: FakeChorus) -> None:
    assert "max input tokens  128" in run("status").stdout
    fake.trouble = {"status": "unwritable", "since_seconds": 12.3, "message": "Changes wait."}
    assert "unwritable for 12 s: Changes wait." in run("status").stdout
    fake.ready = False
    waiting = run("status")
    assert waiting.exit_code == 1
    assert "compiling (3 of 24 programs)" in waiting.stdout


@pytest.mark.parametrize(
    ("words", "code", "stderr"),
    [
        (
            ("tasks", "show", "absent"),
            1,
            "chorus: unknown_task in task: There is no task 'absent'. [req_1]\n",
        ),
        (("tasks", "show", "a/b/c"), 2, "chorus: invalid argument in task: 'a/b' is not a name"),
        (("tasks", "rollback"), 2, "Missing argument"),
        (("tasks", "promote", "a", "zero"), 2, "not a valid integer"),
        (("generate", "a"), 2, "no input"),
        (("generate",), 2, "Name the task"),
        (("generate", "a", "x", "--field", "text=y"), 2, "not both"),
        (("generate", "a", "--field", "text"), 2, "NAME=TEXT"),
        (("ensemble", "vote"), 2, "Name a stored ensemble"),
        (("tasks", "push", "a", "/nowhere/x.npy"), 2, "does not exist"),
        (("--url", "ftp://x", "tasks", "list"), 1, "http or https"),
        (("--timeout-seconds", "inf", "tasks", "list"), 2, "timeout_seconds must be above 0 and at most"),
        (("tasks", "list", "--total-seconds", "nan"), 2, "total_seconds must be above 0 and at most"),
        (("tasks", "list", "--total-seconds", "0"), 2, "x>0"),
        (("--key-file", "/nowhere/key", "tasks", "list"), 1, "cannot be read"),
    ],
)
def test_errors_are_a_sentence(run: Run, words: tuple[str, ...], code: int, stderr: str) -> None:
    result = run(*words)
    assert result.exit_code == code
    assert stderr in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_options_after_the_verb_win(run: Run, url: str, fake: FakeChorus, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    run("--url", "http://127.0.0.1:1", "tasks", "list", "--url", url, "--key-file", str(key))
    assert fake.seen[-1].headers["authorization"] == "Bearer secret"


def test_a_hostile_server_cannot_drive_the_terminal() -> None:
    hostile = refuse(404, "unknown_task", "\x1b]0;owned\x07 \u202e\nsecond line", "task")
    with on_loopback(lambda request: hostile) as url:
        result = CliRunner().invoke(root.chorus, ["--url", url, "tasks", "list"])
    assert "\x1b" not in result.stderr and "\x07" not in result.stderr and "\u202e" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert clean("a\x1b[31mb\n\tc") == "a\ufffd[31mb\n\tc"


def test_a_sentence_names_code_and_field() -> None:
    error = NotFoundError("No such thing.", code="unknown_task", field="task", request_id="req_7")
    assert sentence(error) == "chorus: unknown_task in task: No such thing. [req_7]"


class AbsentPoint(EntryPoint):
    """An entry point of a server whose dependencies are not there."""

    def load(self) -> Any:
        raise ModuleNotFoundError("No module named 'jax'", name="jax")


COMMANDS, BELOW_TENANTS = "chorus.commands", "chorus.commands.tenants"


def offer(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    """Make these all that is installed."""
    monkeypatch.setattr(
        offered, "entry_points", lambda group: [point for point in points if point.group == group]
    )


@pytest.mark.parametrize(
    ("group", "words"), [(COMMANDS, ("serve",)), (BELOW_TENANTS, ("tenants", "bootstrap"))], ids=" ".join
)
def test_a_verb_of_the_server_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, group: str, words: tuple[str, ...]
) -> None:
    offer(monkeypatch, AbsentPoint(words[-1], "chorus_server.cli:serve", group))
    result = run(*words, "--model", "x")
    assert result.exit_code == 1
    assert f"`chorus {' '.join(words)}` needs the server, and jax is not installed" in result.stderr
    assert "pip install '.[server]'" in result.stderr
    assert words[-1] in run(*words[:-1], "--help").stdout


@pytest.mark.parametrize(
    ("group", "words", "helps"),
    [(COMMANDS, (), root.SHORT_HELP), (BELOW_TENANTS, ("tenants",), tenants.SHORT_HELP)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_verb_of_this_distribution_has_a_line_of_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch, group: str, words: tuple[str, ...], helps: dict[str, str]
) -> None:
    """None of them is imported for it; one that nobody here knows is told all the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = project["entry-points"][group]
    points = [AbsentPoint(name, value, group) for name, value in named.items()]
    offer(monkeypatch, *points, AbsentPoint("elsewhere", "elsewhere:hello", group))
    listed = run(*words, "--help").stdout.split("Commands:")[1]
    told = dict(re.findall(r"^  (\w+) +(\S.*)$", listed, re.M))
    assert told.pop("elsewhere") == "An installed extension.", "control"
    assert set(named) <= set(told) and "An installed extension." not in told.values()
    assert len(set(told.values())) == len(told) and set(named) == set(helps)


@pytest.mark.parametrize(
    ("group", "words"), [(COMMANDS, ()), (BELOW_TENANTS, ("tenants",))], ids=lambda value: str(value)
)
def test_a_verb_of_another_part_runs(
    run: Run, monkeypatch: pytest.MonkeyPatch, group: str, words: tuple[str, ...]
) -> None:
    @click.command()
    def hello() -> None:
        """Greet."""
        click.echo("hello from elsewhere")

    class Present(EntryPoint):
        def load(self) -> Any:
            return hello

    offer(monkeypatch, Present("hello", "elsewhere:hello", group))
    assert run(*words, "hello").stdout == "hello from elsewhere\n"
    assert run(*words, "unheard").exit_code == 2


def test_an_own_verb_is_not_taken_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, AbsentPoint("delete", "elsewhere:delete", BELOW_TENANTS))
    assert "Delete TENANT" in run("tenants", "delete", "--help").stdout
