"""Lessons and glossary in a real browser, on a phone in the dark."""

from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, expect

from benchmarks.serving import CHROME, Server
from dashboard import glossary
from tests.dashboard.browsing import Complaints, at_rest, open_page

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROME is None, reason="no Chromium on this machine")]

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


def test_a_lesson_is_done_and_a_word_looked_up_on_a_phone_in_the_dark(shared: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/lesson2", complaints, 390, "dark")
    option = page.get_by_text("score +").first
    expect(option).to_be_visible(timeout=90_000)
    scores = page.locator("label", has_text="score +").all_inner_texts()
    best = max(scores, key=lambda text: float(text.partition("+")[2].partition(" ")[0]))
    page.locator("label", has_text=best.partition("score ")[2]).click()
    expect(page.get_by_text("Right.")).to_be_visible()
    expect(page.get_by_text("answered right: 2")).to_be_visible()
    at_rest(page)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")

    word = page.get_by_role("link", name="edge", exact=True).first
    expect(word).to_have_attribute("title", glossary.sentence("edge"))
    while not (page.evaluate("document.activeElement.getAttribute('href') ?? ''")).startswith("/glossary#"):
        page.keyboard.press("Tab")
    focused = page.locator(":focus")
    shown = focused.evaluate("element => getComputedStyle(element, '::after').content")
    assert shown.strip('"') == focused.get_attribute("title")
    with page.context.expect_page() as opened:
        word.click()
    looked_up = opened.value
    expect(looked_up.get_by_role("heading", name="edge", exact=True)).to_be_in_viewport(timeout=60_000)

    rules = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'], resultTypes: ['violations'], preload: false}"
    for one in (page, looked_up):
        at_rest(one)
        one.evaluate(AXE)
        result = one.evaluate(f"axe.run({{exclude: [['.main-svg']]}}, {rules})")
        assert not [node["html"][:120] for violation in result["violations"] for node in violation["nodes"]]
    assert not complaints
