"""`chorus bench load`: what it prints, and when it fails."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner

from chorus.cli.root import chorus
from tests.clients.fake_chorus import FakeChorus


def bench(*words: str) -> Any:
    return CliRunner().invoke(chorus, ["bench", "load", *words])


def test_the_command_reports(url: str, fake: FakeChorus) -> None:
    told = bench("--url", url, "--base-model", "--requests", "20", "--concurrency", "3", "--json")
    assert told.exit_code == 0, told.output
    figures = json.loads(told.stdout)
    assert (figures["succeeded"], figures["failed"], figures["interrupted"]) == (20, 0, False)
    assert figures["load"]["arrivals"] == "closed" and figures["load"]["concurrency"] == 3
    assert told.stderr == ""
    table = bench("--url", url, "--base-model", "--requests", "20", "--route", "stream", "--goal-ms", "60000")
    assert (
        "first token" in table.stdout and "within 60000 ms" in table.stdout and "No errors." in table.stdout
    )


def test_the_command_asks_every_task_when_none_is_named(url: str, fake: FakeChorus) -> None:
    nothing = bench("--url", url, "--requests", "5")
    assert nothing.exit_code == 2 and "no task" in nothing.stderr
    from chorus import Client

    with Client(url) as client:
        for name in ("a", "b", "c"):
            client.tasks.push(name, b"x")
    fake.seen.clear()
    told = bench("--url", url, "--requests", "30", "--settings", '{"max_new_tokens": 2}', "--json")
    assert json.loads(told.stdout)["load"]["tasks"] == 3
    bodies = [json.loads(r.content) for r in fake.seen if r.url.path == "/v1/generate"]
    assert {body["task"] for body in bodies} == {"default/a", "default/b", "default/c"}
    assert {body["max_new_tokens"] for body in bodies} == {2}


def test_the_command_fails_when_nothing_was_answered(url: str) -> None:
    told = bench("--url", url, "--task", "absent", "--requests", "3", "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["errors"] == {"unknown_task": 3}


def test_load_over_a_network_is_warned_of() -> None:
    told = bench("--url", "http://0.0.0.0:1", "--base-model", "--requests", "1", "--retries", "0")
    assert "warning: 0.0.0.0 is not this machine" in told.stderr
    assert told.exit_code == 1
    assert bench("--url", "http://127.0.0.1:9", "--base-model", "--requests", "0").exit_code == 2
