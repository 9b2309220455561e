"""What others wrote is text: scripts in every name, label, input and error, on every page, in a browser."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from chorus import ApiError, Client
from tests.clients.console.conftest import EVERY_SCOPE, Browser, Open, Site, sign_in
from tests.clients.console.site_map import places
from tests.clients.console.test_pages import SETTLED

HACKS = (
    '<img src=x data-hacked onerror="window.hacked=1">',
    '"><b data-hacked onmouseover="window.hacked=1" autofocus onfocus=window.hacked=1>',
    "' data-hacked onclick='window.hacked=1",
    "<script data-hacked>window.hacked=1</script>{{7*7}}{% raw %}",
)
LINK = "javascript:window.hacked=1"
ALL = "".join(HACKS)
# An element that a name became, an address that is a script, or one that has run.
FOUND = """() => [...document.querySelectorAll('[data-hacked]')].map((each) => each.outerHTML)
  .concat([...document.querySelectorAll('*')].flatMap((each) =>
    ['href', 'src', 'action', 'formaction', 'hx-post', 'hx-get'].map((name) => each.getAttribute(name))
      .filter((to) => to && /^\\s*javascript:/i.test(to))))
  .concat(window.hacked ? ['it ran'] : [])"""


@pytest.fixture(scope="module")
def hostile(one_site: Site) -> dict[str, str]:
    """A tenant whose people write scripts wherever they may: what stands for each name in the paths."""
    owner = one_site.key("hostile", scopes=EVERY_SCOPE)
    one_site.operator.patch("/v1/tenants/hostile", json={"display_name": ALL})
    prompt = one_site.operator.get("/v1/tasks/sentiment/versions/1/artifact?format=safetensors").content
    with Client(one_site.url, owner["key"]) as client:
        client.tasks.push(
            "bad", prompt, template="{text} " + HACKS[1],
            labels=[*HACKS, LINK], description=ALL, lineage={ALL: LINK, "recipe": {ALL: ALL}},
            metrics={HACKS[0]: 0.5, LINK: 0.5},
        )  # fmt: skip
        client.tasks.push("bad", prompt, labels=[HACKS[0], "more"], description=ALL)
        client.tasks.push("bad", prompt, template="{text}!", labels=[*HACKS, LINK])
        client.tasks.promote("bad", 2)
        client.tasks.promote("bad", 1, "canary")
        client.tasks.share("bad", "birch", ["infer", "read"])
        client.ensembles.create("team", ["bad@1", "bad@3"])
        questions = [each for each in (LINK, *HACKS) if fits(client, each)] or ["mood"]
        for number in (1, 2):
            client.packs.create("desk", dict.fromkeys(questions, f"bad@{number}"))
        client.packs.promote("desk", 2)
        rows = [{"text": ALL, "label": HACKS[0]}, {"text": LINK, "label": HACKS[1]}]
        file = client.files.push("\n".join(map(json.dumps, rows)).encode(), name=f"{ALL[:200]}.jsonl")
        job = client.evaluations.wait(client.evaluations.start(["bad@1"], rows * 2))
        tuning = client.tuning.start(
            "bad", train=file, template="{text} " + HACKS[1], target="label", recipe={"steps": 4000}
        )
        client.tuning.cancel(tuning)
        client.classify("bad@1", input=HACKS[0])
        return {
            "tenant": "hostile", "task": "bad", "pack": "desk", "ensemble": "team",
            "key": owner["id"], "job": job.id,
            "tuning": tuning.id, "file": file.id, "secret": owner["key"],
        }  # fmt: skip


def fits(client: Client, question: str) -> bool:
    """Whether a pack takes a question of this name."""
    try:
        client.packs.create("probe", {question: "bad@1"})
    except ApiError:
        return False
    return True


@pytest.mark.parametrize("kind", ["tasks", "packs", "ensembles", "tenants", "aliases", "keys"])
@pytest.mark.parametrize("name", [*HACKS, LINK])
def test_names_in_addresses_take_no_script(site: Site, hostile: dict[str, str], kind: str, name: str) -> None:
    with Client(site.url, hostile["secret"]) as client:
        prompt = client.tasks.artifact("bad@1")
        calls = {
            "tasks": lambda: client.tasks.push(name, prompt),
            "packs": lambda: client.packs.create(name, {"mood": "bad@1"}),
            "ensembles": lambda: client.ensembles.create(name, ["bad@1"]),
            "tenants": lambda: client.tenants.create(name),
            "aliases": lambda: client.tasks.promote("bad", 1, name),
            "keys": lambda: client.keys.create(name, scopes=["infer"]),
        }
        with pytest.raises((ApiError, ValueError)):
            calls[kind]()


def addresses(hostile: dict[str, str]) -> list[str]:
    """Every page with the hostile tenant's things, then with scripts in place of all that an address may
    say."""
    fields = (
        "task", "other", "text", "prefix", "label", "status", "kind", "name", "tenant", "cursor", "after",
        "version", "alias", "next", "what", "display_name", "weight", "limit.per_minute.requests", "from",
    )  # fmt: skip
    wild = "&".join(f"{name}={quote(HACKS[1])}" for name in fields)
    tame = "task=hostile/bad&task=hostile/team&other=hostile/bad@1&version=1&version=2&alias=live"
    tame += "&kind=task&name=bad&tenant=hostile"
    found = []
    for place in places(hostile):
        if not place.changes and place.route != "/jobs/files/{file}":
            found += [f"{place.path}?{tame}", f"{place.path}?{wild}", place.path]
    for place in places(dict.fromkeys(hostile, quote(HACKS[1], safe=""))):
        if not place.changes and "{" in place.route:
            found.append(place.path)
    return found


def test_no_page_makes_more_of_a_name_than_text(
    site: Site, open_page: Open, hostile: dict[str, str], complaints: list[str], tmp_path: Any
) -> None:
    page, wrong, shown = open_page(), [], 0
    sign_in(page, hostile["secret"])
    complaints.clear()
    for address in addresses(hostile):
        page.goto(address)
        page.wait_for_function(SETTLED)
        if found := page.evaluate(FOUND):
            wrong.append((address, found))
        shown += "data-hacked" in page.evaluate("document.documentElement.innerText")
        refused = [said for said in complaints if not said.startswith("Failed to load resource")]
        wrong += [(address, said) for said in refused]
        complaints.clear()
    assert wrong == [] and shown > 20, shown

    # What is answered to a form: inputs, labels, files, and what is wrong with them.
    page.goto("/console/try?task=hostile/bad&task=hostile/bad@1&task=hostile/team")
    page.get_by_role("textbox", name="text", exact=True).fill(ALL)
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("region", name="Answer of hostile/team").wait_for()
    page.locator("#answers").get_by_text("data-hacked").filter(visible=True).first.wait_for()
    assert page.evaluate(FOUND) == []
    (file := tmp_path / f"{HACKS[0].replace('/', '')}.csv").write_text(
        "text\n" + ALL.replace('"', "'") + "\n"
    )
    page.get_by_text("A small file in place of it").click()
    page.get_by_label("Choose or drop a file").set_input_files(file)
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("region", name="Answers").get_by_text("data-hacked").filter(
        visible=True
    ).first.wait_for()
    assert page.evaluate(FOUND) == []
    page.get_by_label("Task 1").fill(f"{HACKS[0]}@{LINK}")
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("alert").get_by_text("data-hacked").filter(visible=True).first.wait_for()
    assert page.evaluate(FOUND) == []
    page.goto("/console/tune/new")
    file.write_text(HACKS[2] + ",label\n" + HACKS[2] + ",y\n")
    page.get_by_label("Drop a file here").set_input_files(file)
    page.locator("#data").get_by_role("region", name="First rows").wait_for()
    assert page.locator("#data").get_by_text("data-hacked").count() and page.evaluate(FOUND) == []
    assert [said for said in complaints if not said.startswith("Failed to load resource")] == []
    complaints.clear()


def test_control_a_page_that_did_not_escape_would_be_seen(
    open_page: Open, hostile: dict[str, str], complaints: list[str]
) -> None:
    """The same page with what the templates escaped put back: elements are found, and the browser refuses
    their scripts, which is what the policy is for."""
    page = open_page()
    sign_in(page, hostile["secret"])

    def unescaped(route: Any) -> None:
        answer = route.fetch()
        text = answer.text()
        for hack in HACKS:
            text = text.replace(html.escape(hack).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"), hack)
        route.fulfill(response=answer, body=text)

    page.route("**/console/tasks/hostile/bad", unescaped)
    page.goto("/console/tasks/hostile/bad")
    page.wait_for_function(SETTLED)
    assert page.evaluate(FOUND) != []
    assert any("Content Security Policy" in said for said in complaints)
    complaints.clear()


def test_a_file_is_downloaded_under_its_name_and_never_shown(site: Site, hostile: dict[str, str]) -> None:
    browser = Browser(httpx2.Client(base_url=site.url, timeout=300))
    site.opened.append(browser.http)
    browser.post("/console/sign-in", {"key": hostile["secret"]})
    answer = browser.get(f"/console/jobs/files/{hostile['file']}")
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''%3Cimg")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_command_to_copy_runs_nothing_that_an_address_says(site: Site, tmp_path: Path) -> None:
    """A link to a page may have been made by anybody, and what the page says is copied into a terminal."""
    browser = site.browser(site.key(name="copies")["key"])
    mark, tried = tmp_path / "ran", 0
    hack = '$(touch ran)`touch ran`"; touch ran; "'
    for page in ("tasks/default/sentiment/move?version=1&alias=", "tasks?label="):
        answer = browser.get(f"/console/{page}{quote(hack)}")
        assert answer.status_code == 200, answer.text
        for code in re.findall(r"<code>((?:curl|chorus) .*?)</code>", answer.text, re.DOTALL):
            shell = "curl() { :; }; chorus() { :; }\n" + html.unescape(code)
            subprocess.run(["bash", "-c", shell], check=True, cwd=tmp_path)
            assert not mark.exists(), code
            tried += "touch" in code
    assert tried == 4  # a request and a command of each
