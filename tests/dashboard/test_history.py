"""The browser's history: what a person does is a step, Back undoes one, and nothing is asked for that is not there."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.serving import CHROME, Server
from tests.dashboard.browsing import Complaints, click, node, open_page, picked, settled, visitor

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROME is None, reason="no Chromium on this machine")]


def _choose(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=re.compile(label)).click()
    page.get_by_role("option", name=option, exact=True).click()


def test_back_undoes_one_thing_that_was_done_and_forward_does_it_again(shared: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/circuits", complaints)
    heading = page.get_by_role("heading", level=1)
    tracing = page.get_by_role("switch", name="Trace paths").or_(page.get_by_role("checkbox", name="Trace paths"))

    def at(title: str, pick: str | None, traced: bool = False) -> None:
        expect(heading).to_have_text(title)
        if title.startswith("Circuits"):
            choice = page.get_by_role("combobox", name=re.compile("Node or edge"))
            expect(choice).to_have_value(pick or "")
            if pick:
                picked(page, pick)
                expect(tracing).to_be_checked(checked=traced)
        settled(page)

    at("Circuits: base → grpo", None)
    before = page.evaluate("history.length")
    click(page, node(page, 1, "m3"))
    at("Circuits: base → grpo", "m3")
    page.get_by_text("Trace paths").click()
    at("Circuits: base → grpo", "m3", traced=True)
    _choose(page, "Pair", "PPO")
    at("Circuits: base → ppo", "m3", traced=True)
    page.get_by_role("link", name="Intensity").click()
    at("Intensity: base → ppo", None)
    assert page.evaluate("history.length") == before + 4

    states = [
        ("Circuits: base → ppo", "m3", True),
        ("Circuits: base → grpo", "m3", True),
        ("Circuits: base → grpo", "m3", False),
        ("Circuits: base → grpo", None, False),
    ]
    for state in states:
        page.go_back()
        at(*state)
    for state in reversed(states[:-1]):
        page.go_forward()
        at(*state)
    page.go_forward()
    at("Intensity: base → ppo", None)
    assert not complaints


def test_on_a_phone_the_drawer_closes_after_a_page_and_nothing_is_asked_for_that_is_not_there(
    shared: Server, browser: Browser
) -> None:
    page = visitor(browser, 390).new_page()
    refused: list[str] = []
    page.on("response", lambda reply: refused.append(reply.url) if reply.status >= 400 else None)
    page.goto(f"{shared.url}/circuits?pick=m3")
    picked(page, "m3")
    page.get_by_test_id("stExpandSidebarButton").click()
    section = page.get_by_test_id("stSidebarNav").get_by_role("group", name="What changed")
    section.get_by_role("link", name="Intensity").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Intensity: base → grpo")
    expect(page.get_by_test_id("stSidebarNav")).not_to_be_in_viewport()
    settled(page)
    page.goto(f"{shared.url}/?pair=PPO")
    expect(page.get_by_role("heading", level=1)).to_have_text("base → ppo")
    assert refused == []
