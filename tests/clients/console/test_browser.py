"""What a person does, in Debian's Chromium: by role and name, and without a complaint of the browser's."""

from __future__ import annotations

import re
from typing import Any

import pytest

from chorus import Client
from tests.clients.console.conftest import Open, Site, picture, sign_in


@pytest.fixture(scope="module")
def key(one_site: Site) -> str:
    return str(one_site.key(name="person")["key"])


def test_the_first_time(site: Site, open_page: Open, key: str, complaints: list[str], tmp_path: Any) -> None:
    """Paste a key, try what is there, drop a file, tune, watch the curve, promote, compare, roll back."""
    page = open_page()
    paste_the_key(page, key, complaints)
    try_the_demo(page)
    drop_a_file(page, tmp_path)
    tune_and_watch(page)
    promote_compare_and_roll_back(page)
    see_what_moved(page)
    lineage = site.operator.get("/v1/tasks/films/versions/1").json()["lineage"]
    assert {split: lineage["data"][split]["rows"] for split in ("train", "validation", "test")} == {
        "train": 60, "validation": 6, "test": 6
    }  # fmt: skip
    assert site.operator.get("/v1/tasks/films").json()["aliases"]["live"] == 1
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert key.split("_")[2] not in page.content() + kept + page.url and kept.startswith("[{},")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in to Chorus").wait_for()


def paste_the_key(page: Any, key: str, complaints: list[str]) -> None:
    page.goto("/console")
    page.get_by_label("API key").fill("ck_mistyped")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    assert complaints.pop().startswith("Failed to load resource")  # the 400 itself
    picture(page, "sign-in")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("row", name=re.compile("sentiment.*0.8")).wait_for()
    picture(page, "tasks")


def try_the_demo(page: Any) -> None:
    page.get_by_role("link", name="sentiment", exact=True).click()
    page.get_by_role("link", name="Try it").click()
    page.get_by_label("Task 2").fill("default/sentiment-vote")
    page.get_by_role("textbox", name="text").fill("a joyless mess")
    page.get_by_role("button", name="Ask").click()
    answer = page.get_by_role("region", name="Answer of default/sentiment@3")
    answer.get_by_text("negative").first.wait_for()
    assert (
        page.get_by_role("region", name="Answer of default/sentiment-vote")
        .get_by_text("100.0 % agree")
        .count()
    )
    picture(page, "try")


def drop_a_file(page: Any, tmp_path: Any) -> None:
    """First one that is wrong, then a good one; its template and recipe are filled in."""
    page.get_by_role("link", name="Tune").click()
    page.get_by_role("link", name="Tune a prompt").click()
    (bad := tmp_path / "bad.csv").write_text("the text,label\na joyless mess,no\nonly one\n")
    page.get_by_label("Drop a file here").set_input_files(bad)
    page.get_by_role("alert").get_by_text("Row 2 has 1 columns").wait_for()
    words = ("warm", "funny", "bright", "joyless", "dull", "grim")
    rows = [f"a {words[i % 6]} film number {i},{'yes' if i % 6 < 3 else 'no'}" for i in range(60)]
    (good := tmp_path / "films.csv").write_text("the text,label\n" + "\n".join(rows) + "\n")
    page.get_by_label("Drop a file here").set_input_files(good)
    page.get_by_text("60 rows, 2 columns").wait_for()
    page.get_by_text("Files for validation and test").click()
    more = "the text,label,note\n" + "\n".join(
        f"a {word} show,{'yes' if n < 3 else 'no'}," for n, word in enumerate(words)
    )
    (wrong := tmp_path / "wrong.csv").write_text(more + "\na warm show,maybe,\n")
    page.get_by_label("the validation file").set_input_files(wrong)
    page.get_by_text("Row 7: the answer 'maybe' is not among the labels.").wait_for()
    assert page.locator("input[name=validation]").count() == 0
    assert page.get_by_label("Use it for validation").is_checked()
    for split in ("validation", "test"):
        (file := tmp_path / f"{split}.csv").write_text(more + "\n")
        page.get_by_label(f"the {split} file").set_input_files(file)
        page.locator(f"input[name={split}]").wait_for(state="attached")
    page.get_by_label("Template").fill("film: {the_text}")
    page.get_by_text("film: a warm film number 0").wait_for()
    picture(page, "tune-new")
    for name, value in (("Task", "films"), ("Steps", "30"), ("Rows of the prompt", "8"), ("Batch size", "4"),
                        ("Measure every", "10"),
                        ("Members of an ensemble", "2")):  # fmt: skip
        page.get_by_label(name, exact=True).fill(value)


def tune_and_watch(page: Any) -> None:
    """An ensemble of two, until it is over, and what it gets wrong."""
    page.get_by_role("button", name="Start tuning").click()
    page.get_by_role("heading", name="default/films", exact=True).wait_for()
    page.get_by_role("button", name="Pause").wait_for()
    loss = page.get_by_role("img", name=re.compile("Loss: 1 curves"))
    loss.locator("canvas").wait_for()  # while it runs
    page.get_by_text("succeeded", exact=True).wait_for()
    page.get_by_role("img", name=re.compile("Loss: 1 curves, up to step 30")).locator("canvas").wait_for()
    assert page.get_by_role("img", name=re.compile("Accuracy on the validation split: 2 curves")).count() == 1
    page.get_by_role("heading", name="What default/films@1 gets wrong").wait_for()
    hardest = page.get_by_role("region", name="Hardest rows of default/films@1")
    hardest.get_by_role("row", name=re.compile("film: a .* show")).first.wait_for()
    page.get_by_role("link", name="default/films@2", exact=True).click()
    page.get_by_role("region", name="Confusion of default/films@2").wait_for()
    picture(page, "tune-job")


def promote_compare_and_roll_back(page: Any) -> None:
    page.get_by_role("link", name="Promote default/films@2").click()
    changes = page.get_by_role("region", name="What would change")
    changes.get_by_role("row", name=re.compile("lineage: index.* 0 1")).wait_for()
    picture(page, "promote")
    page.get_by_role("button", name="Promote").click()
    page.get_by_role("button", name="Compare those chosen").click()
    page.get_by_role("heading", name="Versions beside each other").wait_for()
    picture(page, "compare")
    page.get_by_role("link", name="films", exact=True).click()
    page.get_by_role("link", name="Roll live back to 1…").click()
    page.get_by_role("button", name="Roll back").click()
    page.get_by_text("There is nothing to go back to.").wait_for()


def see_what_moved(page: Any) -> None:
    """In training: each row of the prompt, from the values with which that began."""
    page.goto("/console/interpret?task=films@1")
    page.get_by_role("columnheader", name="Moved in training").wait_for()
    rows = page.get_by_role("region", name="Nearest pieces").get_by_role("row")
    moved = [float(row.split("\t")[2]) for row in rows.all_inner_texts()[1:]]
    assert len(moved) == 8 and min(moved) > 0
    picture(page, "interpret-moved")
    page.goto("/console/interpret?task=sentiment@1")
    page.get_by_text("What moved in training is not known").wait_for()


def test_a_small_file_is_answered_as_a_table(open_page: Open, key: str, tmp_path: Any) -> None:
    page = open_page()
    sign_in(page, key)
    page.goto("/console/try?task=default/sentiment")
    (file := tmp_path / "two.csv").write_text("text\na joyless mess\nwarm and funny\n")
    page.get_by_text("A small file in place of it").click()
    page.get_by_label("Choose or drop a file").set_input_files(file)
    page.get_by_role("button", name="Ask").click()
    rows = page.get_by_role("region", name="Answers").get_by_role("row")
    rows.nth(2).wait_for()
    assert rows.nth(1).inner_text().split("\t")[:3] == ["1", "a joyless mess", "negative"]
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download as CSV").click()
    text = saved.value.path().read_text()
    assert text.splitlines()[2].startswith('"2","warm and funny","positive"')


def test_keys_are_made_rotated_and_revoked(site: Site, open_page: Open) -> None:
    owner = site.key("keepers", name="owner", scopes=["admin", "infer", "prompts:read"])
    page = open_page()
    sign_in(page, owner["key"])
    page.get_by_role("link", name="Tenants").click()
    page.get_by_label("Name of what uses it").fill("website")
    page.get_by_role("button", name="Make the key").click()
    made = page.get_by_label("The new key").inner_text().strip()
    assert site.operator.get("/v1/me", headers={"authorization": f"Bearer {made}"}).status_code == 200
    page.goto("/console/tenants/keys")
    assert made not in page.content()
    page.get_by_role("button", name="Rotate website").click()
    page.get_by_label("The new key").wait_for()
    page.goto("/console/tenants/keys")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Revoke website").last.click()
    page.get_by_role("row", name=re.compile("website.*revoked")).wait_for()
    assert site.operator.get("/v1/me", headers={"authorization": f"Bearer {made}"}).status_code == 401
    picture(page, "keys")
    page.get_by_role("link", name="Audit log").click()
    page.get_by_text("of this page are one chain: every hash was computed again").wait_for()
    page.get_by_role("row", name=re.compile("key.revoke")).wait_for()


def test_an_evaluation_is_started_and_shown_with_its_measures(
    open_page: Open, key: str, tmp_path: Any
) -> None:
    rows = "a joyless mess\tnegative\nwarm and funny\tpositive\n"
    (file := tmp_path / "dev.tsv").write_text("the text\tlabel\n" + rows * 4)
    page = open_page()
    sign_in(page, key)
    page.get_by_role("link", name="Jobs").click()
    page.get_by_role("link", name="Evaluate").click()
    page.get_by_label("Drop a file here").set_input_files(file)
    page.get_by_text("8 rows, 2 columns").wait_for()
    page.get_by_label("First", exact=True).fill("sentiment@1")
    page.get_by_label("Beside it 1").fill("sentiment@3")
    page.get_by_label("Beside it 1").press("Tab")
    page.get_by_label("text is the column").select_option("the text")
    picture(page, "evaluate")
    page.get_by_role("button", name="Start the evaluation").click()
    page.get_by_role("img", name="Reliability of default/sentiment@1").wait_for()
    page.get_by_role("row", name=re.compile("sentiment@3 accuracy")).wait_for()
    assert page.get_by_role("img", name="Risk against coverage of default/sentiment@3").count() == 1
    promised = page.get_by_role("region", name="Coverage of default/sentiment@3").get_by_role("row")
    assert re.match(r"95.0 %\s+100.0 %\s+[5-9]\d\.\d %", promised.nth(3).inner_text())
    picture(page, "evaluation")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download predictions").click()
    assert len(saved.value.path().read_text().splitlines()) == 8


def test_operations_show_what_the_server_does_and_did(site: Site, open_page: Open, key: str) -> None:
    with Client(site.url, key) as client:
        client.generate("sentiment", inputs=["a joyless mess"] * 3)
    page = open_page()
    sign_in(page, key)
    page.get_by_role("link", name="Operations").click()
    page.get_by_text("default/sentiment", exact=True).first.wait_for()  # its prompt is on the device
    page.get_by_role("row", name=re.compile("weights.*MB")).wait_for()
    # Ten seconds after the start there is something to draw; the page asks for it by itself.
    drawn = page.get_by_role("img", name=re.compile("Requests a minute: answered, failed"))
    drawn.locator("canvas").wait_for()
    assert page.get_by_role("img", name=re.compile("over [0-9]+ minutes")).count() == 5
    assert page.get_by_role("heading", name="Processes with leases").count() == 0, "for operators alone"
    picture(page, "operations")


@pytest.mark.parametrize("why", ["the key is revoked", "the cookies are gone"])
def test_a_session_that_ends_while_somebody_writes_loses_nothing(
    site: Site, open_page: Open, complaints: list[str], why: str
) -> None:
    first, second = site.key(name="ends"), site.key(name="follows")
    page = open_page()
    sign_in(page, first["key"])
    page.goto("/console/try?task=default/sentiment")
    page.get_by_role("textbox", name="text").fill("a long thought about a joyless mess")
    if why == "the key is revoked":
        site.revoke(first)
    else:
        page.context.clear_cookies()
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("dialog", name="Sign in again").wait_for()
    assert complaints.pop().startswith("Failed to load resource")  # the 401 itself
    picture(page, "sign-in-again")
    page.get_by_label("API key").fill(second["key"])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("Signed in. Go on where you were.").wait_for()
    assert page.get_by_role("textbox", name="text").input_value() == "a long thought about a joyless mess"
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("region", name="Answer of default/sentiment@3").wait_for()


def test_what_a_page_asks_by_itself_waits_while_somebody_signs_in(
    site: Site, open_page: Open, complaints: list[str]
) -> None:
    """Neither a key half pasted nor a problem is gone with the next look at what happens now."""
    key = site.key(name="watches")
    page = open_page()
    sign_in(page, key["key"])
    page.clock.install()
    page.goto("/console/operations")
    page.evaluate("document.getElementById('problems').textContent = 'It did not work.'")
    looked: list[str] = []
    page.on("request", lambda request: looked.append(request.url))
    with page.expect_response(re.compile("part=now")):
        page.clock.run_for(3500)
    assert page.get_by_text("It did not work.").count() == 1
    site.revoke(key)
    status = 200
    while status != 401:
        with page.expect_response(re.compile("part=now")) as answer:
            page.clock.run_for(3500)
        status = answer.value.status
    page.get_by_role("dialog", name="Sign in again").wait_for()
    complaints.clear()  # the 401 itself
    page.get_by_label("API key").fill("half a key")
    looked.clear()
    page.clock.run_for(20_000)
    assert page.get_by_label("API key").input_value() == "half a key" and looked == []


def test_control_a_script_in_a_page_would_not_run_either(open_page: Open, complaints: list[str]) -> None:
    page = open_page()
    page.goto("/console/sign-in")
    script = "Object.assign(document.createElement('script'), {textContent: 'window.hacked=1'})"
    page.evaluate(f"document.body.append({script})")
    assert page.evaluate("window.hacked") is None
    assert "Content Security Policy" in complaints.pop()
