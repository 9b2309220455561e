"""Who comes in, and what a page gives away: asked over HTTP as a browser asks, without one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from chorus import Client
from tests.clients.console.conftest import EVERY_SCOPE, Site
from tests.server.api.api_harness import eventually

TASK = "/console/tasks/default/sentiment"
MOVE = f"{TASK}/move"


def live(site: Site) -> Any:
    return site.operator.get("/v1/tasks/sentiment").json()["aliases"]["live"]


def form_of(page: str) -> dict[str, str]:
    """The hidden fields of a page that shows a move."""
    return dict(re.findall(r'type="hidden" name="(alias|version|now|back)" value="([^"]*)"', page))


def cookie(site: Site) -> str:
    """The name of the session's cookie."""
    return f"chorus_console_{site.url.rpartition(':')[2].strip('/')}"


def test_without_a_session_pages_ask_for_a_key_and_come_back(site: Site) -> None:
    browser = site.browser()
    answer = browser.get(f"{TASK}?moved=live")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/console/sign-in?next=/console/tasks/default/sentiment")
    assert browser.get("/console/tasks", **{"HX-Request": "true"}).headers["hx-retarget"] == "#dialog"


def test_the_key_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(site: Site) -> None:
    key = site.key(name="cookie")
    browser = site.browser()
    answer = browser.post("/console/sign-in", {"key": key["key"], "next": TASK})
    attributes = answer.headers["set-cookie"]
    assert attributes.startswith(f"{cookie(site)}=cs_")
    assert "HttpOnly" in attributes and "SameSite=strict" in attributes and "Path=/console" in attributes
    assert answer.status_code == 303 and answer.headers["location"] == TASK
    assert "Secure" not in attributes
    assert int(re.findall("Max-Age=([0-9]+)", attributes)[0]) > 2 * 12 * 3600  # longer than the session
    page = browser.get(TASK)
    assert page.status_code == 200
    secret = key["key"].split("_")[2]
    for text in (answer.text, str(answer.headers), page.text, str(page.headers)):
        assert secret not in text
    assert browser.http.cookies[cookie(site)] not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    assert page.headers["cache-control"] == "no-store"
    of_a_proxy = {"Origin": "https://chorus.example", "Sec-Fetch-Site": "same-origin"}
    over_tls = browser.post("/console/sign-in", {"key": key["key"]}, **of_a_proxy)
    assert "Secure" in over_tls.headers["set-cookie"]


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "//evil.example", "/v1/tasks", "javascript:alert(1)"]
)
def test_signing_in_leads_nowhere_else(site: Site, to: str) -> None:
    browser, key = site.browser(), site.key(name="nowhere")
    answer = browser.post("/console/sign-in", {"key": key["key"], "next": to})
    assert answer.headers["location"] == "/console"
    site.revoke(key)


@pytest.mark.parametrize("key", ["", "two words", "ck_wrong", "\u00e4" * 20, "x" * 5000])
def test_what_is_no_key_is_refused(site: Site, key: str) -> None:
    browser = site.browser()
    answer = browser.post("/console/sign-in", {"key": key})
    assert answer.status_code == 400 and 'role="alert"' in answer.text
    assert browser.get("/console/tasks").status_code == 303


def test_a_session_is_good_for_the_console_only(site: Site) -> None:
    """Its token is no key: what comes over the network with it is refused."""
    browser = site.browser(site.key(name="only")["key"])
    token = browser.http.cookies[cookie(site)]
    answer = browser.http.get("/v1/tasks", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert browser.http.get("/v1/tasks").status_code == 401  # with the cookie, which is sent nowhere else
    assert browser.get("/console/tasks").status_code == 200  # the control


def test_a_revoked_key_ends_its_sessions(site: Site) -> None:
    """With the next reading of the change feed."""
    key = site.key(name="revoked")
    browser, other = site.browser(key["key"]), site.browser(site.key(name="stays")["key"])
    assert browser.get("/console/tasks").status_code == 200
    site.revoke(key)
    eventually(lambda: browser.get("/console/tasks").status_code != 200)
    assert other.get("/console/tasks").status_code == 200


def test_signing_out_ends_the_session_for_good(site: Site) -> None:
    browser = site.browser(site.key(name="leaving")["key"])
    kept = browser.http.cookies[cookie(site)]
    browser.get("/console/tasks")
    assert browser.post("/console/sign-out", {}).status_code == 303
    assert cookie(site) not in browser.http.cookies
    browser.http.cookies.set(cookie(site), kept, domain="127.0.0.1", path="/console")
    assert browser.get("/console/tasks").status_code == 303


@pytest.mark.parametrize("csrf", ["", "0" * 64, "another"])
def test_a_change_without_the_pages_token_is_refused(site: Site, csrf: str) -> None:
    browser = site.browser(site.key(name="forged")["key"])
    before = live(site)
    if csrf == "another":
        other = site.browser()
        other.get("/console/sign-in")
        csrf = other.csrf
    form = {"alias": "live", "version": "1", "now": str(before), "back": ""}
    assert browser.post(MOVE, form, csrf=csrf).status_code == 403
    assert live(site) == before


def test_control_with_the_token_the_change_is_made(site: Site) -> None:
    browser, before = site.browser(site.key(name="owner")["key"]), live(site)
    browser.get(f"{MOVE}?version=1")
    form = {"alias": "live", "version": "1", "now": str(before), "back": ""}
    assert browser.post(MOVE, form).status_code == 303 and live(site) == 1
    stale = browser.post(MOVE, form)  # the page said something else
    assert stale.status_code == 303 and live(site) == 1  # it is where it was to go
    browser.get(TASK)
    form = {"alias": "live", "version": str(before), "now": "1", "back": "1"}
    assert browser.post(MOVE, form).status_code == 303
    assert live(site) == before
    told = site.operator.get("/v1/audit?limit=500").json()["rows"]
    assert {row["action"] for row in told} >= {"alias.move", "alias.rollback"}


def test_a_rollback_goes_where_the_page_says(site: Site) -> None:
    """From 1, 2, 3, going back twice leads to 2 and to 1; and a page that is out of date moves nothing."""
    made = site.key("steps", name="steps")
    browser = site.browser(made["key"])
    prompt = site.operator.get("/v1/tasks/sentiment/versions/1/artifact?format=safetensors").content
    with Client(site.url, made["key"]) as client:
        for number in (1, 2, 3):
            client.tasks.push("back", prompt, template=f"{number}: {{text}}")
            client.tasks.promote("back", number)
        page, back = "/console/tasks/steps/back", "/move?alias=live&back=1"
        assert "Roll live back to 2…" in browser.get(page).text
        old = form_of(browser.get(page + back).text)
        assert browser.post(f"{page}/move", old).status_code == 303
        assert client.tasks.get("back").aliases == {"live": 2}
        assert "Roll live back to 1…" in browser.get(page).text
        assert browser.post(f"{page}/move", old | {"now": "2"}).status_code == 409  # it said: to 2
        assert "names version 2 now" in browser.post(f"{page}/move", old).text  # it said: from 3
        assert client.tasks.get("back").aliases == {"live": 2}
        assert browser.post(f"{page}/move", form_of(browser.get(page + back).text)).status_code == 303
        assert client.tasks.get("back").aliases == {"live": 1}
        assert browser.get(page + back).status_code == 409
        assert "There is nothing to go back to." in browser.get(page).text


def test_an_alias_that_is_not_there_yet_is_shown_what_it_will_name(site: Site) -> None:
    """Not an empty table of differences."""
    page = site.browser(site.key(name="names")["key"]).get(f"{MOVE}?version=1&alias=fresh").text
    assert "There is no alias fresh yet" in page and 'aria-label="What it will be"' in page
    assert "What would change" not in page and "<td>negative, positive</td>" in page


def test_a_pack_rolls_back_after_its_difference_is_shown(site: Site) -> None:
    made = site.key(name="packer")
    browser = site.browser(made["key"])
    with Client(site.url, made["key"]) as client:
        client.packs.create("desk", {"mood": "sentiment@1"})
        client.packs.create("desk", {"mood": "sentiment@2", "tone": "sentiment@1"})
        assert "Roll live back" not in browser.get("/console/packs/default/desk").text  # live never moved
        client.packs.promote("desk", 2)
        assert "Roll live back to 1…" in browser.get("/console/packs/default/desk").text
        page = browser.get("/console/packs/default/desk/move?alias=live&back=1")
        for text in ("default/sentiment@1", "default/sentiment@2", "question: tone", "back to version 1"):
            assert text in page.text
        form = form_of(page.text)
        assert browser.post("/console/packs/default/desk/move", form | {"now": "1"}).status_code == 409
        assert browser.post("/console/packs/default/desk/move", form).status_code == 303
        assert client.packs.get("desk").aliases == {"live": 1}
        assert browser.get("/console/packs/default/desk/move?alias=live&back=1").status_code == 409
        client.packs.delete("desk")


def test_a_pack_is_promoted_after_its_difference_is_shown(site: Site) -> None:
    made = site.key(name="promoter")
    browser = site.browser(made["key"])
    with Client(site.url, made["key"]) as client:
        for number in (1, 2, 3):
            client.packs.create("shelf", {"mood": f"sentiment@{number}"})
        page = "/console/packs/default/shelf"
        shown = browser.get(page).text  # the newest and the live one
        assert "default/sentiment@3" in shown and "default/sentiment@1" in shown
        assert "default/sentiment@2" not in shown
        assert "default/sentiment@2" in browser.get(f"{page}?version=2&version=3").text
        move = browser.get(f"{page}/move?alias=live&version=2").text
        assert "Point live at version 2?" in move and "default/sentiment@2" in move
        assert browser.post(f"{page}/move", form_of(move) | {"now": "3"}).status_code == 409
        assert browser.post(f"{page}/move", form_of(move)).headers["location"] == page
        assert client.packs.get("shelf").aliases == {"live": 2}
        moved = browser.get(page).text
        assert "<b>live</b> 1 → 2" in moved and "Roll live back to 1…" in moved
        assert browser.get(f"{page}/move?version=9").status_code == 404
        client.packs.delete("shelf")
    assert browser.get(page).status_code == 404


def test_an_ensembles_versions_stand_beside_each_other(site: Site) -> None:
    made = site.key(name="voter")
    browser = site.browser(made["key"])
    with Client(site.url, made["key"]) as client:
        client.ensembles.create("board", ["sentiment@1", "sentiment@2"])
        client.ensembles.create("board", ["sentiment@1", "sentiment@3"], weights=[2, 1])
        page = browser.get("/console/ensembles/default/board?version=1&version=2").text
        assert "votes × 2" in page
        differ = re.findall('<tr class="differs"><th scope="row">([^<]*)', page)
        assert [each for each in differ if each != "made"] == [f"default/sentiment@{n}" for n in (1, 2, 3)]
        client.ensembles.delete("board")


def send(browser: Any, path: str, form: dict[str, Any], **files: tuple[str, str]) -> Any:
    """Send a form as a page does: with the token in a header."""
    browser.get("/console/tune/new")
    headers = {"hx-request": "true", "x-csrf-token": browser.csrf}
    return browser.http.post(path, data=form, files=files or None, headers=headers)


def file_in(page: str) -> str:
    return re.findall(r'name="file" value="(file-[0-9a-f]+)"', page)[0]


DEV = "said\tanswer\n" + "a joyless mess\t0\nwarm and funny\t1\n" * 3


def test_an_evaluation_with_baselines_is_started(site: Site) -> None:
    made = site.key(name="measurer")
    browser = site.browser(made["key"])
    looked = send(browser, "/console/jobs/evaluate/data", {}, file=("dev.tsv", DEV))
    file = file_in(looked.text)
    assert "6 rows, 2 columns" in looked.text
    again = send(browser, "/console/jobs/evaluate/data", {"id": file})
    assert file_in(again.text) == file  # one that is there is not uploaded again
    columns = {"column": ["said", "answer"], "subject": ["sentiment@1", "sentiment-vote"]}
    fields = send(browser, "/console/jobs/fields", columns).text
    assert 'name="field.text"' in fields and "<option>said</option>" in fields
    form = columns | {
        "file": file, "field.text": "said", "target": "answer", "labels": "negative\npositive",
        "target_texts": "0=negative\n1 = positive", "base": "on", "template": "{said}", "few_shot": "1",
        "instruction": "Is it good?", "majority": "on", "answer_by": "ranked",
    }  # fmt: skip
    started = send(browser, "/console/jobs/evaluate", form, examples=("solved.tsv", DEV))
    assert started.status_code == 200, started.text
    with Client(site.url, made["key"]) as client:
        job = client.evaluations.wait(started.headers["hx-redirect"].rpartition("/")[2])
        assert job.succeeded, job.error
        assert [each["kind"] for each in job.result["subjects"]] == ["task", "ensemble", "base", "majority"]
        assert job.result["subjects"][0]["metrics"]["accuracy"] == 1
        files = len(client.files.list())
        refused = send(
            browser, "/console/jobs/evaluate", form | {"subject": "nobody@1"}, examples=("s.tsv", DEV)
        )
        assert refused.status_code == 404 and "nobody" in refused.text
        assert len(client.files.list()) == files  # what was sent for it is gone
        mistyped = send(
            browser, "/console/jobs/evaluate", form | {"target_texts": "0"}, examples=("s.tsv", DEV)
        )
        assert mistyped.status_code == 400 and len(client.files.list()) == files
    for wrong in ({"subject": "", "base": "", "majority": ""}, {"target_texts": "0"}, {"few_shot": "many"}):
        assert send(browser, "/console/jobs/evaluate", form | wrong).status_code == 400


@pytest.mark.parametrize("kind", ["a table", "lines"])
def test_a_batch_is_started(site: Site, kind: str) -> None:
    made = site.key(name="batcher")
    browser = site.browser(made["key"])
    body = {"task": "sentiment@1", "input": "warm and funny"}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/classify", "body": body}
    file = ("rows.csv", "said\nwarm and funny\n") if kind == "a table" else ("lines.jsonl", json.dumps(line))
    looked = send(browser, "/console/jobs/batch/data", {}, file=file).text
    form = dict(re.findall(r'type="hidden" name="(file|kept|endpoint)" value="([^"]*)"', looked))
    if kind == "a table":
        assert "endpoint" not in form
        form |= {"subject": "sentiment@1", "field.text": "said"}
    else:
        assert "These are the lines of a batch for <code>/v1/classify</code>" in looked
    started = send(browser, "/console/jobs/batch", form)
    assert started.status_code == 200, started.text
    job = started.headers["hx-redirect"].rpartition("/")[2]
    with Client(site.url, made["key"]) as client:
        ended = client.batches.wait(job)
        assert ended.succeeded and ended.output_file, ended.error
        there = [file.id for file in client.files.list()]
        assert (form["file"] in there) == (kind == "lines")  # a table's rows are in the lines
    answers = browser.get(f"/console/jobs/files/{ended.output_file}").text
    assert json.loads(answers)["response"]["body"]["results"][0]["label"] == "positive"
    assert "Download output file" in browser.get(f"/console/jobs/{job}").text


@pytest.mark.parametrize("page", ["/console/tune", "/console/jobs/evaluate", "/console/jobs/batch"])
def test_a_form_names_a_file_of_the_tenant_and_none_beside_the_server(
    site: Site, page: str, tmp_path: Path
) -> None:
    """The console's client would upload what is at a path, and it runs where the server's secrets are."""
    made = site.key(name="reader")
    browser = site.browser(made["key"])
    (secret := tmp_path / "secret.csv").write_text("text,label\nthe secret,yes\n")
    form = {"task": "taken", "subject": "sentiment@1", "template": "{text}", "target": "label"}
    form |= {"steps": "0", "target_texts": "0", "endpoint": "/v1/nothing"}  # so that nothing is queued
    with Client(site.url, made["key"]) as client:
        before = client.files.list()
        for named in (secret, tmp_path, tmp_path / "nowhere.csv"):
            answer = send(browser, page, form | {"file": str(named)})
            assert answer.status_code == 400 and "is not a name" in answer.text
        assert client.files.list() == before
        there = client.files.push(secret)
        answer = send(browser, page, form | {"file": there.id})
        assert answer.status_code == 400 and "is not a name" not in answer.text  # the control
        client.files.delete(there)


def test_a_search_is_started_paused_and_resumed(site: Site) -> None:
    made = site.key(name="searcher")
    browser = site.browser(made["key"])
    rows = "text,label\n" + "".join(f"a film {n},{'yes' if n % 2 else 'no'}\n" for n in range(40))
    file = file_in(send(browser, "/console/tune/data", {}, file=("films.csv", rows)).text)
    form = {
        "file": file, "column": ["text", "label"], "task": "searched", "template": "{text}",
        "target": "label", "labels": "no\nyes", "steps": "4000", "search": "halving",
        "space.learning_rate": "0.1, 0.3", "space": "dropout_rate = 0,0.1", "seeds": "2", "eta": "2",
    }  # fmt: skip
    for wrong in ({"space.learning_rate": "0.1..much"}, {"search": "luck"}, {"space": "dropout_rate"},
                  {"validation.wrong": "mixed.csv"}):  # fmt: skip
        assert send(browser, "/console/tune", form | wrong).status_code == 400
    started = send(browser, "/console/tune", form)
    assert started.status_code == 200, started.text
    page = started.headers["hx-redirect"]
    paused = send(browser, f"{page}/pause", {})
    assert paused.status_code == 200, paused.text
    shown = browser.get(page).text
    assert f'hx-post="{page}/resume"' in shown and f'hx-post="{page}/pause"' not in shown
    trials = re.findall(
        r'<tr[^>]*><th scope="row" class="n">(\d)</th><td>([^<]*)</td><td>([^<]*)</td>', shown
    )
    assert sorted(trials) == [("0", "0.1", "0"), ("1", "0.1", "0.1"), ("2", "0.3", "0"), ("3", "0.3", "0.1")]
    assert send(browser, f"{page}/resume", {}).status_code == 200
    assert f'hx-post="{page}/pause"' in browser.get(page).text
    assert send(browser, f"{page}/cancel", {}).status_code == 200
    with Client(site.url, made["key"]) as client:
        ended = client.tuning.wait(page.rpartition("/")[2])
        assert (ended.status, ended.spec["seeds"], len(ended.spec["sweep"]["rungs"])) == ("cancelled", 2, 3)
    assert browser.get(f"{page}/mistakes").text.strip() == ""  # it made no version


def test_the_page_of_any_job_follows_it(site: Site) -> None:
    made = site.key(name="follower")
    browser = site.browser(made["key"])
    with Client(site.url, made["key"]) as client:
        # It would take minutes, so that it runs when its page is asked for.
        job = client.evaluations.start(["sentiment@1"], [{"text": "a film", "label": "negative"}] * 20_000)
        assert f'hx-get="/console/jobs/{job.id}/live"' in browser.get(f"/console/jobs/{job.id}").text
        client.evaluations.cancel(job)
        client.evaluations.wait(job)
    over = browser.get(f"/console/jobs/{job.id}/live", **{"HX-Request": "true"})
    assert over.headers["hx-redirect"] == f"/console/jobs/{job.id}"
    assert "/live" not in browser.get(f"/console/jobs/{job.id}").text


def test_pages_of_the_audit_log_meet(site: Site) -> None:
    made = site.key("chained", name="chained")
    browser = site.browser(made["key"])
    with Client(site.url, made["key"]) as client:
        for _ in range(26):
            client.keys.revoke(client.keys.create("many", scopes=["infer"]).id)
    first = browser.get("/console/tenants/audit").text
    assert "Rows 1 to 25 of this page are one chain:" in first and "after=25" in first
    assert "Rows 26 to 50 of this page are one chain, which goes on from row 25:" in browser.get(
        "/console/tenants/audit?after=25"
    ).text  # fmt: skip
    assert "which goes on from row 1:" in browser.get("/console/tenants/audit?after=1").text


def test_another_tenants_pages_are_like_those_of_nobody(site: Site) -> None:
    browser = site.browser(site.key("birch", name="neighbour")["key"])
    for path in ("", "/compare?version=1", "/move?version=1"):
        theirs, nobodys = browser.get(TASK + path), browser.get(f"/console/tasks/nobody/sentiment{path}")
        assert theirs.status_code == nobodys.status_code == 404
        assert "SST-2" not in theirs.text
    browser.get("/console/try")
    answer = browser.post("/console/try", {"task": "default/sentiment", "field.text": "a joyless mess"})
    assert answer.status_code == 200 and "There is no task" in answer.text and "negative" not in answer.text
    form = {"alias": "live", "version": "1", "now": str(live(site)), "back": ""}
    assert browser.post(MOVE, form).status_code == 404


def test_what_is_shared_is_shown_and_ended(site: Site) -> None:
    browser = site.browser(site.key(name="sharer")["key"])
    browser.get(TASK)
    shared = browser.post(f"{TASK}/share", {"grantee": "elm", "right": "infer"})
    assert shared.status_code == 303 and "Stop sharing with elm" in browser.get(TASK).text
    assert browser.post(f"{TASK}/share", {"grantee": "elm", "what": "end"}).status_code == 303
    assert "Stop sharing with elm" not in browser.get(TASK).text


def test_what_a_key_may_not_do_its_session_may_not(site: Site) -> None:
    browser = site.browser(site.key(name="reader", scopes=["prompts:read"])["key"])
    browser.get(TASK)
    form = {"alias": "live", "version": "1", "now": str(live(site)), "back": ""}
    answer = browser.post(MOVE, form)
    assert answer.status_code == 403 and "prompts:write" in answer.text


@pytest.mark.parametrize(
    ("scopes", "page"),
    [
        (["prompts:read"], "/console/tasks"), (["metrics:read"], "/console/operations"),
        (["admin"], "/console/tenants/keys"), (["operator"], "/console/tenants"),
        (["infer", "tune"], "/console/try"), (["tune"], ""),
    ],
)  # fmt: skip
def test_the_first_page_is_one_that_the_key_may_see(site: Site, scopes: list[str], page: str) -> None:
    """And so are those that it leads to; a key that may see none is told which it needs."""
    browser = site.browser(site.key(name="narrow", scopes=scopes)["key"])
    first = browser.http.get("/console", follow_redirects=True)
    views = re.findall(
        r'href="([^"]*)"', re.findall(r'(?s)<nav aria-label="Views">(.*?)</nav>', first.text)[0]
    )
    if not page:
        assert first.status_code == 403 and "prompts:read" in first.text and views == []
        return
    assert (first.status_code, first.url.path) == (200, page) and views
    for path in views:
        assert browser.http.get(path, follow_redirects=True).status_code == 200, path


def test_signing_in_again_ends_the_session_before(site: Site) -> None:
    key = site.key(name="again")["key"]
    browser = site.browser(key)
    first = browser.http.cookies[cookie(site)]
    browser.get("/console/tasks")
    assert browser.post("/console/sign-in", {"key": key}).status_code == 303
    assert browser.get("/console/tasks").status_code == 200
    other = site.browser()
    other.http.cookies.set(cookie(site), first, domain="127.0.0.1", path="/console")
    assert other.get("/console/tasks").status_code == 303


def test_a_part_of_a_page_without_a_cookie_signs_in_and_goes_on(site: Site) -> None:
    """As in a browser that dropped its cookies while somebody wrote."""
    key = site.key(name="dropped")["key"]
    browser = site.browser(key)
    browser.get("/console/try")
    browser.http.cookies.clear()
    sent = {"task": "default/sentiment", "field.text": "a joyless mess"}

    def post(path: str, form: dict[str, str]) -> Any:
        answer = browser.http.post(
            path, data=form, headers={"hx-request": "true", "x-csrf-token": browser.csrf}
        )
        if found := re.search('name="csrf" content="([0-9a-f]{64})" hx-swap-oob', answer.text):
            browser.csrf = found[1]
        return answer

    dialog = post("/console/try", sent)
    assert dialog.status_code == 401 and dialog.headers["hx-retarget"] == "#dialog"
    late = site.browser()  # a poll that was under way without a cookie answers after the signing in
    answer = late.get("/console/operations", **{"HX-Request": "true"})
    assert post("/console/sign-in", {"key": key}).status_code == 200
    for given in answer.headers.get_list("set-cookie"):
        name, _, value = given.partition(";")[0].partition("=")
        browser.http.cookies.set(name, value, domain="127.0.0.1", path="/console")
    done = post("/console/try", sent)
    assert done.status_code == 200 and "negative" in done.text


def test_a_stale_token_is_renewed_with_the_refusal(site: Site) -> None:
    browser = site.browser(site.key(name="stale")["key"])
    headers = {"hx-request": "true", "x-csrf-token": "0" * 64}
    refused = browser.http.post("/console/tune/preview", headers=headers)
    found = re.search('content="([0-9a-f]{64})" hx-swap-oob', refused.text)
    assert refused.status_code == 403 and found
    headers["x-csrf-token"] = found[1]
    assert browser.http.post("/console/tune/preview", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/console/tune/preview", "/console/tune/data", "/console/try"])
def test_nothing_is_done_for_nobody(site: Site, path: str) -> None:
    """What a body would make the server do is not done, whatever is in it."""
    browser = site.browser()
    browser.get("/console/sign-in")
    files = {"file": ("wide.csv", b"a," * (4 << 20))}
    headers = {"hx-request": "true", "x-csrf-token": browser.csrf}
    browser.http.headers |= headers
    assert browser.http.post(path, files=files).status_code == 401
    signed = site.browser(site.key(name="somebody")["key"])  # the control
    signed.get("/console/try")
    signed.http.headers |= {"hx-request": "true", "x-csrf-token": signed.csrf}
    assert signed.http.post(path, files=files).status_code in (200, 400)


def test_without_the_header_only_a_small_form_is_read(site: Site) -> None:
    browser = site.browser(site.key(name="headless")["key"])
    browser.get("/console/try")
    large = browser.post("/console/try", {"task": "default/sentiment", "rows": "x\n" * (40 << 10)})
    assert large.status_code == 413
    small = browser.post("/console/try", {"task": "default/sentiment", "rows": "a joyless mess"})
    assert small.status_code == 200


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}])
def test_a_page_of_another_site_changes_nothing(site: Site, headers: dict[str, str]) -> None:
    key = site.key(name="foreign")["key"]
    browser = site.browser(key)
    browser.get(TASK)
    form = {"grantee": "elm", "right": "infer"}
    for path, sent in ((f"{TASK}/share", form), ("/console/sign-in", {"key": key})):
        answer = browser.post(path, sent, **headers)
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "foreign_origin"
    assert browser.post("/console/sign-in", {"key": key}, **{"Sec-Fetch-Site": "same-origin"}).is_redirect


def test_odd_input_is_no_defect(site: Site) -> None:
    browser = site.browser(site.key(name="deep")["key"])
    assert browser.get("/console/sign-in?next=//[").status_code == 200
    browser.get("/console/tune/new")
    headers = {"hx-request": "true", "x-csrf-token": browser.csrf}
    deep = "[" * 100_000
    preview = browser.http.post("/console/tune/preview", data={"sample": deep}, headers=headers)
    assert preview.status_code == 200
    tried = browser.http.post(
        "/console/try", data={"task": "default/sentiment", "rows": '{"a": ' + deep}, headers=headers
    )
    assert tried.status_code == 400
    looked = browser.http.post("/console/tune/data", files={"file": ("x.jsonl", deep)}, headers=headers)
    assert looked.status_code == 200 and "Row 1 is no JSON object" in looked.text
    made = browser.http.post("/console/tenants/keys", data={"name": "x", "days": "9" * 5000}, headers=headers)
    assert made.status_code == 400
    for rate in ("nan", "inf", "much"):
        form = {"task": "x", "learning_rate": rate}
        assert "such as 0.3" in browser.http.post("/console/tune", data=form, headers=headers).text
    operator = site.browser(site.key(name="heavy", scopes=EVERY_SCOPE)["key"])
    for weight in ("nan", "-inf", "much"):
        refused = operator.get(f"/console/tenants/settings?what=change&weight={weight}")
        assert refused.status_code == 400 and "such as 1 or 2.5" in refused.text


def test_what_is_no_reference_is_refused_in_its_own_column(site: Site) -> None:
    browser = site.browser(site.key(name="typist")["key"])
    form = {"task": ["default/sentiment@1", "a/b/c"], "how": "each", "field.text": "warm and funny"}
    answers = send(browser, "/console/try", form)
    assert answers.status_code == 200 and "is not a name" in answers.text and "positive" in answers.text
    for path in ("/console/try/fields?task=a/b/c", "/console/try?task=a/b/c"):
        assert browser.get(path).status_code == 200  # while somebody types it
    assert send(browser, "/console/jobs/fields", {"subject": "a/b/c", "column": "x"}).status_code == 200


def test_bodies_and_paths_that_nobody_needs(site: Site) -> None:
    browser = site.browser(site.key(name="odd")["key"])
    assert browser.get("/console/no-such-page").status_code == 404
    assert browser.get("/console/files/vendor/..%2F..%2Fdoor.py").status_code in (400, 404)
    browser.get("/console/try")
    files = {"file": ("many.txt", b"x\n" * (9 << 20))}
    headers = {"x-csrf-token": browser.csrf}
    answer = browser.http.post("/console/try", data={"task": "sentiment"}, files=files, headers=headers)
    assert answer.status_code == 413


def test_one_row_is_answered_as_one_row(site: Site) -> None:
    browser = site.browser(site.key(name="one", scopes=["infer", "prompts:read"])["key"])
    browser.get("/console/try")
    said = browser.post("/console/try", {"task": "sentiment", "rows": "a joyless mess"}).text
    assert "1 row</h2>" in said, said


def test_pages_lead_to_try_only_with_a_key_that_may_ask(site: Site, things: dict[str, str]) -> None:
    pages = ("tasks", "tasks/default/sentiment", "ensembles", f"ensembles/default/{things['ensemble']}")
    for scopes in (["prompts:read"], ["prompts:read", "infer"]):
        browser = site.browser(site.key(name="reads", scopes=scopes)["key"])
        for page in pages:
            text = browser.get(f"/console/{page}").text
            words = re.findall("Try it<|Choose default/|Try those chosen<|>Let [a-z-]+ vote<", text)
            assert "<h1>" in text and bool(words) == ("infer" in scopes), (page, words)


def test_an_operator_checks_the_store_from_operations(site: Site) -> None:
    browser = site.browser(site.key(name="checks", scopes=EVERY_SCOPE)["key"])
    page = "/console/operations?part=now"
    assert "Check the store" in browser.get("/console/operations").text
    assert send(browser, "/console/operations", {}).headers["hx-redirect"] == "/console/operations"
    while "Nothing is wrong." not in (text := browser.get(page, **{"HX-Request": "true"}).text):
        assert "under way since" in text, text
    other = site.browser(site.key(name="looks")["key"])
    assert "Store check" not in other.get("/console/operations").text
