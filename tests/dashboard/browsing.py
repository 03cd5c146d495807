"""What tests in a real browser share: how to open a page, wait for it, and find and click what is drawn."""

import re
from functools import cache

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

expect.set_options(timeout=30_000)


class Complaints(list[str]):
    """What the browser's console said against our pages."""

    def listen(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("console", lambda message: self._hear(message.type, message.text, message.location.get("url", "")))

    def _hear(self, kind: str, text: str, url: str) -> None:
        if kind == "error":
            self.append(f"{text} ({url})")


def visitor(browser: Browser, width: int = 1440, scheme: str = "light") -> BrowserContext:
    return browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)


known_visitor = cache(visitor)
"""Somebody who has been here before, whose browser has the program's scripts."""


def open_page(browser: Browser, url: str, complaints: Complaints, width: int = 1440, scheme: str = "light") -> Page:
    return visit(known_visitor(browser, width, scheme), url, complaints)


def visit(who: BrowserContext, url: str, complaints: Complaints) -> Page:
    page = who.new_page()
    page.set_default_timeout(30_000)
    complaints.listen(page)
    page.goto(url)
    return page


def settled(page: Page) -> None:
    """Wait until the script has run and all it sent is drawn: the parts of Streamlit that do so are loaded when first
    needed, also the one that puts our style in force."""
    expect(page.locator("[data-testid='stApp'][data-test-script-state='notRunning']")).to_be_visible(timeout=30_000)
    expect(page.locator("[data-testid='stException']")).to_have_count(0)
    expect(page.locator("[data-testid='stSkeleton']")).to_have_count(0)


def at_rest(page: Page) -> None:
    """Wait until nothing on the page has changed for half a second, and nothing fades in any more."""
    settled(page)
    page.evaluate(
        """async () => {
            await new Promise(done => {
                let rest = setTimeout(done, 500);
                new MutationObserver(() => { clearTimeout(rest); rest = setTimeout(done, 500); })
                    .observe(document, {attributes: true, characterData: true, childList: true, subtree: true});
            });
            const fading = document.getAnimations().filter(one => one.effect.getComputedTiming().iterations < Infinity);
            await Promise.allSettled(fading.map(one => one.finished));
        }"""
    )


def plot(page: Page, number: int = 0) -> Locator:
    return page.locator(".js-plotly-plot").nth(number)


def click(page: Page, target: Locator) -> None:
    """Click the middle of something drawn, once it has stopped moving: figures are drawn anew when they change."""
    settled(page)
    expect(target).to_be_attached()
    box = None
    for _ in range(40):
        before, box = box, target.bounding_box()
        if box is not None and box == before:
            break
        target.evaluate("element => element.scrollIntoView({block: 'center'})")
        page.wait_for_timeout(200)
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def node(page: Page, panel: int, name: str) -> Locator:
    """A node of the circuit graph, where its label is drawn."""
    return plot(page).locator("text", has_text=re.compile(f"^{name}$")).nth(panel)


def picked(page: Page, name: str) -> None:
    expect(
        page.locator("[data-testid='stMarkdown'] strong", has_text=re.compile(f"^{re.escape(name)}$"))
    ).to_be_visible()
    settled(page)
