"""`chorus tenants`, `keys` and `whoami`, driven as people drive them, against the real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from chorus import Client, QuotaExceededError
from chorus.cli import root
from chorus.cli.keys import SCOPES
from chorus.cli.tenants import STATUSES
from chorus.cli.values import Moment
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.principal import Scope
from prompts_store.tenants.key_format import public_part
from prompts_store.tenants.limits import TenantLimits
from prompts_store.tenants.records import TENANT_STATUSES
from tests.clients.operated import Operated
from tests.server.api.api_harness import prompt

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[Operated]:
    """A server with an operator's key; tests use tenants of their own."""
    with Operated(tmp_path_factory.mktemp("data"), vocabulary) as server:
        yield server


@pytest.fixture
def run(operated: Operated) -> Run:
    """Runs the command with the operator's key, or another; `lines` go to standard input."""

    def invoke(*words: str, key: str = operated.key, lines: str | None = None) -> Result:
        env = {"CHORUS_URL": operated.url, "CHORUS_API_KEY": key}
        result = CliRunner().invoke(root.chorus, list(words), input=lines, env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def told(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def parsed(result: Result) -> Any:
    return json.loads(told(result))


def facts(result: Result) -> dict[str, str]:
    return dict(line.split("  ", 1) for line in told(result).splitlines())


def test_a_tenant_from_create_to_delete(run: Run) -> None:
    created = run("tenants", "create", "life", "--display-name", "Life Ltd", "--weight", "2")
    assert told(created) == "life created\n"
    shown = {name: value.strip() for name, value in facts(run("tenants", "show", "life")).items()}
    assert (shown["display name"], shown["weight"], shown["status"]) == ("Life Ltd", "2", "active")
    assert "3.5" in told(run("tenants", "update", "life", "--weight", "3.5"))
    assert told(run("tenants", "suspend", "life")) == "life suspended\n"
    assert "suspended" in told(run("tenants", "show", "life"))
    assert "life" in told(run("tenants", "list", "--status", "suspended"))
    assert "Life Ltd" in told(run("tenants", "list", "--prefix", "li"))
    assert told(run("tenants", "list", "--prefix", "nobody")) == "There are no tenants.\n"
    assert told(run("tenants", "resume", "life")) == "life resumed\n"
    assert run("tenants", "delete", "life", lines="n\n").exit_code == 1
    assert told(run("tenants", "delete", "life", lines="y\n")).startswith(
        "life deleted; what it had is removed after 20"
    )
    gone = run("tenants", "show", "life")
    assert gone.exit_code == 1 and gone.stderr.startswith("chorus: unknown_tenant in tenant: ")


def test_a_new_key_is_alone_on_standard_output_and_works(run: Run) -> None:
    told(run("tenants", "create", "keyed"))
    made = run("keys", "create", "website", "--tenant", "keyed", "--scope", "infer", "--scope",
               "prompts:read", "--task", "eu-*", "--task", "news", "--expires", "90d")  # fmt: skip
    key = told(made).removesuffix("\n")
    assert public_part(key) is not None, "nothing else, so that KEY=$(chorus keys create ...) works"
    (listed,) = parsed(run("keys", "list", "--tenant", "keyed", "--json"))["keys"]
    end = datetime.fromisoformat(listed["expires_at"])
    assert made.stderr == (
        f"note: {listed['id']} of keyed expires {end:%Y-%m-%d %H:%M} UTC. "
        "Keep the key now: it is not shown again.\n"
    )
    assert timedelta(days=89) < end - datetime.now(UTC) <= timedelta(days=90)
    who = {name: value.strip() for name, value in facts(run("whoami", key=key)).items()}
    assert (who["tenant"], who["key"]) == ("keyed", f"website ({listed['id']})")
    assert (who["tasks"], who["scopes"]) == ("eu-*, news", "infer, prompts:read")
    assert who["largest batch"] == "1,024 rows"

    of = ("--tenant", "keyed")
    hidden = key.split("_")[2]
    for shown in (run("keys", "show", listed["id"], *of), run("keys", "list", *of)):
        assert f"ck_{listed['public']}_" in told(shown) and hidden not in shown.output
    asked = run("keys", "revoke", listed["id"], *of, lines="n\n")
    assert asked.exit_code == 1 and f"Revoke {listed['id']}, which website uses?" in asked.stderr
    assert parsed(run("whoami", "--json", key=key))["key"]["id"] == listed["id"]
    assert told(run("keys", "revoke", listed["id"], *of, "--yes")) == f"{listed['id']} revoked\n"
    refused = run("whoami", key=key)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("chorus: unauthenticated")
    assert "revoked" in told(run("keys", "show", listed["id"], *of))


def test_limits_are_given_as_names_and_numbers(run: Run) -> None:
    limits = ("--limit", "per_minute.requests=600", "--limit", "per_month.tokens.hard=1000000")
    told(run("tenants", "create", "tight", *limits, "--retention", "usage_days=90"))
    shown = facts(run("tenants", "show", "tight"))
    assert shown["limits"].strip() == "per_minute.requests=600, per_month.tokens.hard=1000000"
    assert shown["retention"].strip() == "usage_days=90"
    changed = run("tenants", "update", "tight", "--limit", "stored.prompts=1_000", "--default-retention")
    assert facts(changed)["limits"].strip() == "stored.prompts=1000", "in place of the others"
    assert facts(changed)["retention"].strip() == "default"
    made = parsed(run("keys", "create", "app", "--scope", "infer", "--tenant", "tight", "--json",
                      "--limit", "in_flight.requests=4"))  # fmt: skip
    who = facts(run("whoami", key=made["key"]))
    assert who["key's in flight, requests"].strip() == "4 of 4 left"
    assert who["tenant's stored, prompts"].strip() == "1,000 of 1,000 left"
    of = (made["id"], "--tenant", "tight")
    assert "queued.tokens=9" in told(run("keys", "update", *of, "--limit", "queued.tokens=9"))
    assert facts(run("keys", "update", *of, "--no-limits"))["limits"].strip() == "none"
    assert parsed(run("tenants", "update", "tight", "--no-limits", "--json"))["limits"] == {}


def test_json_is_what_the_server_said(run: Run, operated: Operated) -> None:
    with Client(operated.url, operated.key) as client:
        made = parsed(run("tenants", "create", "jsons", "--json"))
        assert made == client.tenants.get("jsons").model_dump(mode="json")
        assert made in parsed(run("tenants", "list", "--json"))["tenants"]
        key = parsed(run("keys", "create", "app", "--scope", "infer", "--tenant", "jsons", "--json"))
        assert public_part(key.pop("key")) == key["public"] and key["expires_at"] is None
        assert parsed(run("keys", "show", key["id"], "--tenant", "jsons", "--json")) == key
        of = ("--tenant", "jsons", "--yes", "--json")
        assert parsed(run("keys", "revoke", key["id"], *of))["status"] == "revoked"
        assert parsed(run("whoami", "--json")) == client.me().model_dump(mode="json")
        for verb, status in (("suspend", "suspended"), ("resume", "active")):
            assert parsed(run("tenants", verb, "jsons", "--json"))["status"] == status
        assert parsed(run("tenants", "update", "jsons", "--weight", "2", "--json"))["weight"] == 2
        assert parsed(run("tenants", "delete", "jsons", "--yes", "--json"))["status"] == "deleted"


@pytest.mark.parametrize(
    ("words", "code", "stderr"),
    [
        (("tenants", "update", "default"), 2,
         "There is nothing to change: give --display-name, --weight, --limit or --retention."),
        (("tenants", "update", "default", "--limit", "a=1", "--no-limits"), 2, "not both"),
        (("tenants", "update", "default", "--limit", "a.b"), 2, "'a.b' is not NAME=NUMBER: write per_"),
        (("tenants", "update", "default", "--retention", "usage_days=x"), 2, "write usage_days=90"),
        (("tenants", "update", "default", "--limit", "a.b=1", "--limit", "a.b=2"), 2, "a.b is given twice"),
        (("tenants", "update", "default", "--limit", "a=1", "--limit", "a.b=2"), 2, "is a number already"),
        (("tenants", "update", "default", "--limit", "per_day.requests=1"), 1,
         "chorus: unknown_field in limits.per_day: "),
        (("keys", "update", "key-0"), 2, "There is nothing to change: give --limit or --no-limits."),
        (("tenants", "create", "default"), 1, "chorus: tenant_exists in tenant: "),
        (("tenants", "delete", "default", "--yes"), 1, "chorus: conflict in tenant: "),
        (("keys", "create", "app"), 2, "Missing option '--scope'"),
        (("keys", "create", "app", "--scope", "fly"), 2, "'fly' is not one of"),
        (("keys", "create", "app", "--scope", "infer", "--expires", "soon"), 2,
         "'soon' is neither a duration nor a date: write 90d (m, h, d, w), 2030-01-31 or 2030-01-31T12:00Z."),
        (("keys", "create", "app", "--scope", "infer", "--tenant", "absent"), 1, "chorus: unknown_tenant"),
        (("keys", "show", "key-0"), 1, "chorus: unknown_key in key: "),
    ],
)  # fmt: skip
def test_errors_are_a_sentence(run: Run, words: tuple[str, ...], code: int, stderr: str) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert stderr in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("verb", ["show", "revoke"])
def test_a_key_itself_is_not_sent_and_not_shown_again(run: Run, operated: Operated, verb: str) -> None:
    result = run("keys", verb, operated.key)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("chorus: invalid argument in key: This is a key itself")
    assert operated.key not in result.stderr


def test_who_is_refused_the_verbs(run: Run) -> None:
    told(run("tenants", "create", "small"))
    key = told(run("keys", "create", "app", "--scope", "infer", "--tenant", "small")).strip()
    for words in (("tenants", "list"), ("keys", "list"), ("keys", "create", "more", "--scope", "infer")):
        result = run(*words, key=key)
        assert (result.exit_code, result.stdout) == (1, "") and result.stderr.startswith("chorus: forbidden")
    assert facts(run("whoami", key=key))["scopes"].strip() == "infer"


def moment(text: str) -> datetime:
    return Moment().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("90d", timedelta(days=90)),
        ("4w", timedelta(weeks=4)),
    ],
)
def test_a_duration_counts_from_now(text: str, length: timedelta) -> None:
    before = datetime.now(UTC)
    found = moment(text)
    assert before + length <= found <= datetime.now(UTC) + length


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2090-01-31", datetime(2090, 1, 31, tzinfo=UTC)),
        ("2090-01-31T12:00Z", datetime(2090, 1, 31, 12, tzinfo=UTC)),
        ("2090-01-31 12:00:30+02:00", datetime(2090, 1, 31, 10, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_date_is_that_moment(text: str, expected: datetime) -> None:
    assert moment(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is neither a duration nor a date"),
        ("90", "is neither a duration nor a date"),
        ("90 d", "is neither a duration nor a date"),
        ("-1d", "is neither a duration nor a date"),
        ("1y", "is neither a duration nor a date"),
        ("٣d", "is neither a duration nor a date"),
        ("2090-02-30", "is neither a duration nor a date"),
        ("0d", "is not in the future"),
        ("2020-01-31", "is not in the future"),
        ("99999999999999999999d", "is later than any date"),
        ("5000000d", "is later than any date"),
        ("2090-01-31T12:00", "has no time zone: write 2090-01-31T12:00Z for UTC"),
    ],
)
def test_what_is_no_moment_to_come_is_explained(text: str, words: str) -> None:
    with pytest.raises(click.BadParameter) as raised:
        moment(text)
    assert raised.value.message.startswith(f"{text!r} {words}")


def table_lines(result: Result) -> list[str]:
    """A table's header and rows."""
    return [line.strip() for line in told(result).splitlines() if line.strip("─ ")]


def test_sharing(operated: Operated, run: Run) -> None:
    for tenant in ("cli-lender", "cli-borrower"):
        told(run("tenants", "create", tenant))
    scopes = [
        word for scope in ("infer", "prompts:read", "prompts:write", "admin") for word in ("--scope", scope)
    ]
    lender, borrower = (
        told(run("keys", "create", "app", "--tenant", tenant, *scopes)).strip()
        for tenant in ("cli-lender", "cli-borrower")
    )
    with Client(operated.url, lender) as client:
        client.tasks.push("mood", prompt(2))
        client.ensembles.create("panel", ["mood"])
    assert told(run("shared", key=borrower)) == "Nothing is shared with you.\n"
    assert told(run("tasks", "grants", "mood", key=lender)) == "It is shared with nobody.\n"
    shared = run("tasks", "share", "mood", "--with", "cli-borrower", key=lender)
    assert told(shared) == "mood is shared with cli-borrower: infer\n"
    rights = ("--right", "read", "--right", "infer")
    assert parsed(run("tasks", "share", "mood", "--with", "*", *rights, "--json", key=lender))["rights"] == [
        "infer",
        "read",
    ]
    panel = run("ensemble", "share", "panel", "--with", "*", key=lender)
    assert told(panel) == "panel is shared with all tenants: infer\n"
    listed = table_lines(run("tasks", "grants", "mood", key=lender))
    assert listed[0].split() == ["tenant", "rights", "granted", "by"] and listed[1].startswith("all tenants")
    lines = table_lines(run("shared", key=borrower))
    assert [line.split()[:2] for line in lines[1:]] == [
        ["cli-lender/mood", "task"],
        ["cli-lender/panel", "ensemble"],
    ]
    found = parsed(run("shared", "--kind", "ensemble", "--json", key=borrower))
    assert found == {"shared": [{"kind": "ensemble", "reference": "cli-lender/panel", "rights": ["infer"]}]}
    assert len(parsed(run("ensemble", "grants", "panel", "--json", key=lender))["grants"]) == 1
    for words in (("tasks", "unshare", "mood"), ("ensemble", "unshare", "panel")):
        ended = told(run(*words, "--with", "*", key=lender))
        assert ended == f"{words[2]} is no longer shared with all tenants\n"
    assert run("tasks", "unshare", "mood", "--with", "*", key=lender).exit_code == 1
    assert run("tasks", "share", "mood", key=lender).exit_code == 2


def test_the_commands_know_the_servers_scopes_and_statuses() -> None:
    assert tuple(scope.value for scope in Scope) == SCOPES
    assert TENANT_STATUSES == STATUSES


def test_what_is_left_and_what_refuses(run: Run, operated: Operated) -> None:
    told(run("tenants", "create", "limited"))
    of = ("--tenant", "limited", "--scope", "infer", "--json")
    key = parsed(run("keys", "create", "app", *of))["key"]
    limits = {"per_minute": {"requests": 2}, "per_month": {"tokens": {"soft": 1_000_000}}}
    operated.store.update_tenant("limited", limits=TenantLimits.model_validate(limits))
    operated.services.callers.forget()
    who = {name: value.strip() for name, value in facts(run("whoami", key=key)).items()}
    assert who["tenant's per minute, requests"] == "2 of 2 left"
    assert who["tenant's per month, tokens"] == "0 used, a warning from 1,000,000 on"
    with Client(operated.url, key, retries=0) as client:
        with pytest.raises(QuotaExceededError) as refused:
            client.generate(inputs=["good"] * 3, max_new_tokens=1)
        assert refused.value.code == "limit_exceeded"
        assert refused.value.retry_after_seconds is None, "no wait lets more through than the whole limit"
        assert refused.value.quota == {
            "of": "tenant", "limit": "per_minute.requests", "window": "minute", "most": 2, "used": 0,
        }  # fmt: skip
        me = client.me()
        assert me.limits.tenant == limits and me.limits.key == {}
        assert [each.left for each in me.limits.left] == [2, None]
