"""Tenants and Try, as people use them: by role and name, in Debian's Chromium."""

from __future__ import annotations

import re
from typing import Any

import pytest

from chorus import Client
from tests.clients.console.conftest import EVERY_SCOPE, Open, Site, picture, sign_in


@pytest.fixture(scope="module")
def key(one_site: Site) -> str:
    return str(one_site.key(name="views", scopes=EVERY_SCOPE)["key"])


def test_an_operator_makes_a_tenant_and_a_limited_key(site: Site, open_page: Open, key: str) -> None:
    page = open_page()
    sign_in(page, key)
    page.get_by_role("link", name="Tenants").click()
    page.get_by_role("link", name="Make a tenant").click()
    page.get_by_label("Name, for ever").fill("maple")
    page.get_by_label("Name for people").fill("Maple & Sons")
    page.get_by_label("requests a minute").fill("600")
    page.get_by_label("tokens a month: at most").fill("1,000,000")
    page.get_by_role("button", name="Show what is made").click()
    page.get_by_role("region", name="What would change").get_by_role(
        "row", name=re.compile("limit: per_month.tokens.hard – 1000000")
    ).wait_for()
    assert site.operator.get("/v1/tenants/maple").status_code == 404  # it was only shown
    picture(page, "tenant-made")
    page.get_by_role("button", name="Make it").click()
    page.get_by_role("heading", name="Keys of maple").wait_for()
    made = site.operator.get("/v1/tenants/maple").json()
    assert made["display_name"] == "Maple & Sons" and made["limits"]["per_minute"]["requests"] == 600
    assert made["limits"]["per_month"]["tokens"]["hard"] == 1_000_000

    page.get_by_label("Name of what uses it").fill("shop")
    page.get_by_label("Days until it ends").fill("30")
    page.get_by_label("Only these tasks").fill("sentiment*, default/*")
    page.get_by_text("Limits of this key").click()
    page.get_by_label("requests a minute").fill("60")
    page.get_by_label("prompts:read").check()
    page.get_by_role("button", name="Make the key").click()
    secret = page.get_by_label("The new key").inner_text().strip()
    bearer = {"authorization": f"Bearer {secret}"}
    me = site.operator.get("/v1/me", headers=bearer).json()
    assert me["tenant"]["tenant"] == "maple" and me["key"]["tasks"] == ["sentiment*", "default/*"]
    assert me["scopes"] == ["infer", "prompts:read"] and me["key"]["expires_at"]
    assert me["limits"]["key"]["per_minute"]["requests"] == 60
    page.goto("/console/tenants/keys?tenant=maple")
    page.get_by_role("link", name="shop", exact=True).click()
    page.get_by_label("requests a minute").fill("90")
    page.get_by_role("button", name="Show what changes").click()
    page.get_by_role("row", name=re.compile("per_minute.requests 60 90")).wait_for()
    page.get_by_role("button", name="Change the limits").click()
    page.get_by_role("region", name="What would change").wait_for(state="detached")
    me = site.operator.get("/v1/me", headers=bearer).json()
    assert me["limits"]["key"]["per_minute"]["requests"] == 90


def test_a_tenant_is_changed_after_what_changes_is_shown(
    site: Site, open_page: Open, key: str, complaints: list[str]
) -> None:
    """And not if somebody else changed it meanwhile."""
    limits = {"per_minute": {"requests": 600}, "per_month": {"tokens": {"hard": 1_000_000}}}
    assert site.operator.post("/v1/tenants", json={"name": "rowan", "limits": limits}).status_code == 201
    page = open_page()
    sign_in(page, key)
    page.goto("/console/tenants/settings?tenant=rowan")
    page.get_by_label("Weight").fill("2.5")
    page.get_by_label("tokens a month: at most").fill("")
    page.get_by_label("Usage is kept for days").fill("90")
    page.get_by_role("button", name="Show what changes").click()
    rows = page.get_by_role("region", name="Changes").get_by_role("row").all_inner_texts()
    assert [row.split("\t") for row in rows[1:]] == [
        ["weight", "1", "2.5"],
        ["limit: per_month.tokens.hard", "1000000", "–"],
        ["kept: usage days", "–", "90"],
    ]
    picture(page, "tenant-changes")
    site.operator.patch("/v1/tenants/rowan", json={"display_name": "Rowan"})  # somebody else, meanwhile
    page.get_by_role("button", name="Change it").click()
    page.get_by_text("rowan has changed since this page was shown").wait_for()
    assert complaints.pop().startswith("Failed to load resource")  # the 409 itself
    page.reload()
    page.get_by_role("button", name="Change it").click()
    page.get_by_role("region", name="What would change").wait_for(state="detached")
    now = site.operator.get("/v1/tenants/rowan").json()
    assert now["weight"] == 2.5 and now["retention"]["usage_days"] == 90
    assert now["limits"]["per_minute"]["requests"] == 600 and not now["limits"].get("per_month")


def test_a_tenant_is_suspended_and_resumed(site: Site, open_page: Open, key: str) -> None:
    made = site.key("willow", name="shop")
    bearer = {"authorization": f"Bearer {made['key']}"}
    page = open_page()
    sign_in(page, key)
    page.goto("/console/tenants")
    page.get_by_role("link", name="Settings of willow").click()
    page.get_by_role("link", name="Suspend…").click()
    page.get_by_role("row", name=re.compile("status active suspended")).wait_for()
    assert site.operator.get("/v1/me", headers=bearer).status_code == 200
    page.get_by_role("button", name="Suspend it").click()
    page.get_by_role("link", name="Resume…").wait_for()
    assert site.operator.get("/v1/me", headers=bearer).status_code in (401, 403)
    page.get_by_role("link", name="Resume…").click()
    page.get_by_role("button", name="Resume it").click()
    page.get_by_role("link", name="Suspend…").wait_for()
    assert site.operator.get("/v1/me", headers=bearer).status_code == 200
    page.get_by_role("link", name="Audit log").click()
    for action in ("tenant.create", "key.create", "tenant.suspend", "tenant.resume"):
        page.get_by_role("row", name=re.compile(action.replace(".", r"\."))).first.wait_for()
    page.get_by_text("of this page are one chain").wait_for()


def test_a_task_an_ensemble_and_a_pack_are_shared(site: Site, open_page: Open, key: str, things: Any) -> None:
    page = open_page()
    sign_in(page, key)
    page.on("dialog", lambda dialog: dialog.accept())
    other = site.key("aspen", name="grantee")
    with Client(site.url, other["key"]) as client:
        for kind, name in (("task", "entailment"), ("ensemble", "sentiment-vote"), ("pack", things["pack"])):
            page.goto("/console/tenants/grants")
            page.get_by_label("Kind").select_option(kind)
            page.get_by_label("Name").fill(name)
            page.get_by_role("button", name="Show with whom it is shared").click()
            page.get_by_label("Share with the tenant").fill("aspen")
            page.get_by_role("button", name="Share", exact=True).click()
            page.get_by_role("button", name="Stop sharing with aspen").wait_for()
            assert f"default/{name}" in [each.reference for each in client.shared(kind)]
        theirs = open_page()
        sign_in(theirs, other["key"])
        theirs.goto("/console/tenants/grants")
        theirs.get_by_role("row", name="default/sentiment-vote ensemble infer").wait_for()
        page.get_by_role("button", name="Stop sharing with aspen").click()
        page.get_by_role("button", name="Stop sharing with aspen").wait_for(state="detached")
        shared = [each.kind for each in client.shared() if each.reference.startswith("default/")]
        assert sorted(shared) == ["ensemble", "task"]


def batches(site: Site) -> tuple[float, float]:
    """How many prefill steps ranked labels, and how many rows they had in all."""
    text = site.operator.get("/metrics").text
    found = [re.search(rf'chorus_batch_rows_{what}{{kind="score"}} (\S+)', text) for what in ("count", "sum")]
    count, rows = (float(each[1]) if each else 0.0 for each in found)
    return count, rows


def test_versions_beside_each_other_are_one_batch(site: Site, open_page: Open, key: str) -> None:
    """By the server's own count: its batches have room for four labels."""
    page = open_page()
    sign_in(page, key)
    page.goto("/console/try?task=sentiment@2&task=sentiment@3")
    page.get_by_role("textbox", name="text", exact=True).fill("a joyless mess")
    answer = page.get_by_role("region", name="Answer of default/sentiment@3")
    page.get_by_role("button", name="Ask").click()  # a prompt that is not on the device yet comes later
    answer.wait_for()
    page.evaluate("document.getElementById('answers').replaceChildren()")
    before = batches(site)
    page.get_by_role("button", name="Ask").click()
    answer.wait_for()
    count, rows = batches(site)
    assert (count - before[0], rows - before[1]) == (1, 2)
    assert re.search(r"together, \d+ ms", answer.inner_text())
    answer.get_by_text("Numbers").click()
    assert re.search(r"negative\s+-\d+\.\d{4}", answer.inner_text())
    assert "input tokens" in answer.inner_text()
    picture(page, "try-versions")


def test_every_member_of_a_vote_is_drawn(open_page: Open, key: str) -> None:
    page = open_page()
    sign_in(page, key)
    page.goto("/console/try?task=sentiment@1&task=sentiment@2&task=sentiment@3")
    page.get_by_label("They vote").check()
    page.get_by_role("textbox", name="text", exact=True).fill("a joyless mess")
    page.get_by_role("button", name="Ask").click()
    answer = page.get_by_role("region", name="Answer of sentiment@1 + sentiment@2 + sentiment@3")
    answer.get_by_text("agree").wait_for()
    members = answer.get_by_role("list").last.get_by_role("listitem")
    assert members.count() == 3
    for number, text in enumerate(members.all_inner_texts(), 1):
        assert f"default/sentiment@{number}" in text and "%" in text and "log probability" in text
    picture(page, "try-vote")


@pytest.mark.parametrize(("kind", "fact"), [("ensembles", "sentiment@2"), ("packs", "question: mood")])
def test_an_ensemble_and_a_pack_are_promoted_and_rolled_back_after_their_difference_is_shown(
    site: Site, open_page: Open, kind: str, fact: str
) -> None:
    """Without a right to the audit log: how they moved is seen by all who see them."""
    made = site.key(name="mover", scopes=["prompts:read", "prompts:write"])
    name = f"moved-{kind}"
    with Client(site.url, made["key"]) as client:
        for number in (1, 2):
            if kind == "packs":
                client.packs.create(name, {"mood": f"sentiment@{number}"})
            else:
                client.ensembles.create(name, [f"sentiment@{number}", "sentiment@3"])
        page = open_page()
        sign_in(page, made["key"])
        page.goto(f"/console/{kind}?prefix=moved")
        page.get_by_role("link", name=name, exact=True).click()
        page.get_by_role("link", name="Promote version 2").click()
        changes = page.get_by_role("region", name="What would change")
        changes.get_by_role("row", name=re.compile(re.escape(fact))).wait_for()
        methods = getattr(client, kind)
        assert methods.get(f"{name}@live").version == 1  # it was only shown
        picture(page, f"promote-{kind}")
        page.get_by_role("button", name="Promote").click()
        page.get_by_text("live 1 → 2").wait_for()
        assert methods.get(f"{name}@live").version == 2
        page.get_by_role("link", name="Roll live back to 1…").click()
        changes.get_by_role("row", name=re.compile(re.escape(fact))).wait_for()
        page.get_by_role("button", name="Roll back").click()
        page.get_by_text("There is nothing to go back to.").wait_for()
        assert [move.version for move in methods.aliases(name).history] == [1, 2, 1]
        page.get_by_text("live 2 → 1").wait_for()
        picture(page, f"history-{kind}")


def test_a_key_that_may_only_ask_tries_the_tasks_that_it_may_ask(
    site: Site, open_page: Open, complaints: list[str]
) -> None:
    """A task with labels, an ensemble, and rows of several fields; what it may not name is not there."""
    body = {"name": "asks", "scopes": ["infer"], "tasks": ["sentiment", "sentiment-vote", "entailment"]}
    key = site.operator.post("/v1/keys?tenant=default", json=body).json()["key"]
    page = open_page()
    page.goto("/console/sign-in")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Try").wait_for()
    assert page.get_by_role("navigation", name="Views").get_by_role("link").all_inner_texts() == ["Try"]
    assert page.locator("#known option").evaluate_all("all => all.map((each) => each.value)") == body["tasks"]
    page.get_by_label("Task 1").fill("sentiment")
    page.get_by_label("Task 2").fill("sentiment-vote")
    page.get_by_label("Task 3").fill("question")
    page.get_by_role("textbox", name="text", exact=True).fill("a joyless mess")
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("region", name="Answer of sentiment", exact=True).get_by_text(
        "negative"
    ).first.wait_for()
    page.get_by_role("region", name="Answer of sentiment-vote").get_by_text("agree").first.wait_for()
    page.get_by_role("region", name="Answer of question").get_by_text("There is no").wait_for()
    picture(page, "try-infer-alone")
    page.get_by_label("Task 1").fill("entailment")
    for place in (2, 3):
        page.get_by_label(f"Task {place}").fill("")
    page.get_by_text("A small file in place of it").click()
    page.get_by_label("or paste rows").fill('{"sentence1": "A man sleeps.", "sentence2": "A man is awake."}')
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("region", name="Answers").get_by_role("row").nth(1).wait_for()
    assert page.get_by_role("region", name="Answers").get_by_text(re.compile("^(yes|no)$")).count() == 1


def test_a_table_is_answered_as_a_batch(open_page: Open, key: str, tmp_path: Any) -> None:
    (file := tmp_path / "rows.csv").write_text("said\na joyless mess\nwarm and funny\n")
    page = open_page()
    sign_in(page, key)
    page.get_by_role("link", name="Jobs").click()
    page.get_by_role("link", name="Answer a file").click()
    page.get_by_label("Drop a file here").set_input_files(file)
    page.get_by_text("2 rows, 1 column").wait_for()
    page.get_by_label("Task", exact=True).fill("sentiment@3")
    page.get_by_label("Task", exact=True).press("Tab")
    page.get_by_label("text is the column").select_option("said")
    page.get_by_role("button", name="Start the batch").click()
    page.get_by_text("succeeded", exact=True).wait_for()
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download output file").click()
    assert len(saved.value.path().read_text().splitlines()) == 2
    picture(page, "batch")
