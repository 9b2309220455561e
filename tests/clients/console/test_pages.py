"""Every page of the console in Debian's Chromium: what it weighs, who can use it, and by what keys. One visit
serves all of that."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.console.conftest import EVERY_SCOPE, Open, Site, picture, sign_in
from tests.clients.console.site_map import SHOWING, Forms, places

MOST_BYTES = 150_000
# Of the page and of all that it needs, also where the browser has that already.
BYTES = """performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))
  .reduce((sum, each) => sum + each.decodedBodySize, 0)"""
SETTLED = "() => document.readyState === 'complete' && !document.querySelector('.htmx-request')"
# What can be used: seen, not switched off, and not one of several radio buttons, of which Tab reaches one.
USABLE = """[
  ...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')
].filter((each) => each.checkVisibility({ visibilityProperty: true }) && !each.disabled
    && each.type !== 'hidden' && (each.type !== 'radio' || each.checked))"""
# From now on, what gets the focus, and whether one sees that.
WATCH = """() => {
  window.seen = new Map();
  document.activeElement.blur();
  document.addEventListener('focusin', ({ target }) => {
    const style = getComputedStyle(target);
    window.seen.set(target, style.outlineStyle !== 'none' && style.outlineWidth !== '0px');
  });
}"""
LOOKS = (
    (1440, "light", "all"), (1440, "dark", "color-contrast"),
    (360, "light", "color-contrast"), (360, "dark", "all"),
)  # fmt: skip
"""Widths, colours, and what axe-core looks at then."""


@pytest.fixture(scope="module")
def key(one_site: Site) -> str:
    return str(one_site.key(name="person", scopes=EVERY_SCOPE)["key"])


def pages(site: Site, things: dict[str, str], key: str) -> list[tuple[str, str]]:
    """Route and address of whatever is a whole page; what is a part, a file, or leads elsewhere is not."""
    browser, found = site.browser(key), []
    for place in places(things):
        address = place.path + SHOWING.get(place.route, "")
        if not place.changes:
            answer = browser.get(address)
            assert answer.status_code in (200, 303), (address, answer.text)
            if answer.status_code == 200 and Forms(answer.text).is_page:
                found.append((place.route, address))
    return found


def serious(page: Any, axe: str, rules: str = "all") -> list[object]:
    """What axe-core finds serious or worse.

    Args:
        rules: `all`, or the name of one.
    """
    page.evaluate(axe)
    only = "" if rules == "all" else f", runOnly: ['{rules}']"
    found = page.evaluate(f"axe.run(document, {{resultTypes: ['violations']{only}}})")
    return [
        (each["id"], [node["html"] for node in each["nodes"]][:3])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def keyed(page: Any) -> list[str]:
    """What of a page the Tab key alone does not reach, or reaches without showing it."""
    page.evaluate(WATCH)
    for _ in range(page.evaluate(f"{USABLE}.length") + 3):
        page.keyboard.press("Tab")
    found: list[str] = page.evaluate(
        f"{USABLE}.filter((each) => !window.seen.get(each)).map((each) => each.outerHTML)"
    )
    return found


def test_every_page_is_light_and_for_everybody(
    site: Site, open_page: Open, axe: str, key: str, things: dict[str, str], complaints: list[str]
) -> None:
    page, wrong = open_page(), []
    sign_in(page, key)
    for route, address in pages(site, things, key):
        page.set_viewport_size({"width": 1440, "height": 900})
        page.emulate_media(color_scheme="light", reduced_motion="reduce")  # colours change at once
        page.goto(address)
        page.wait_for_function(SETTLED)
        if (weight := page.evaluate(BYTES)) > MOST_BYTES:
            wrong.append((address, f"{weight} bytes"))
        wrong += [(address, "not by keyboard", each) for each in keyed(page)]
        for width, scheme, rules in LOOKS:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
                wrong.append((address, f"{wide} pixels wide where there are {width}"))
            wrong += [(address, width, scheme, each) for each in serious(page, axe, rules)]
            name = route.strip("/").replace("/", "-").replace("{", "").replace("}", "") or "console"
            picture(page, f"{name}-{scheme}-{width}")
        wrong += [(address, each) for each in complaints]
        complaints.clear()
    assert wrong == []


def test_control_what_is_wrong_with_a_page_is_noticed(open_page: Open, axe: str) -> None:
    page = open_page()
    page.goto("/console/sign-in")
    assert serious(page, axe) == [] and keyed(page) == []
    page.evaluate("document.querySelector('#key').tabIndex = -1")
    assert len(keyed(page)) == 1
    page.evaluate("document.querySelector('label').remove()")
    page.evaluate("document.querySelector('.lead').style.color = '#ddd'")
    assert {name for name, _ in serious(page, axe)} >= {"color-contrast"}


def test_the_main_deeds_by_keyboard(site: Site, open_page: Open, key: str) -> None:
    """Sign in, ask, promote and roll back, and make a key, without a pointer."""
    page = open_page()

    def tab_to(**what: Any) -> None:
        wanted = page.get_by_role(what.pop("role"), **what).first
        for _ in range(120):
            if wanted.evaluate("(each) => each === document.activeElement"):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {what}")

    page.goto("/console/sign-in")
    page.keyboard.insert_text(key)  # the field has the focus
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Tasks").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.goto("/console/try?task=default/sentiment")
    tab_to(role="textbox", name="text", exact=True)
    page.keyboard.insert_text("a joyless mess")
    tab_to(role="button", name="Ask")
    page.keyboard.press("Enter")
    page.get_by_role("region", name="Answer of default/sentiment@3").get_by_text("negative").first.wait_for()
    page.goto("/console/tasks/default/sentiment/move?version=1")
    tab_to(role="button", name="Promote")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Roll live back to 3…").wait_for()
    tab_to(role="link", name="Roll live back to 3…")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Roll back").wait_for()
    tab_to(role="button", name="Roll back")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Versions").wait_for()
    assert site.operator.get("/v1/tasks/sentiment").json()["aliases"]["live"] == 3
    page.goto("/console/tenants/keys")
    tab_to(role="textbox", name="Name of what uses it")
    page.keyboard.insert_text("by-keyboard")
    page.keyboard.press("Enter")
    page.get_by_label("The new key").wait_for()
