"""The app in a real browser, on a server started as `make app` starts it."""

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks.serving import CHROME, CHROME_FLAGS, Server
from tests.dashboard.conftest import specs_of

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROME is None, reason="no Chromium on this machine")]

PAGES = {
    "": "base → ppo",
    "circuits": "Circuits: base → ppo",
    "distributions": "Distributions: base → ppo",
    "intensity": "Intensity: base → ppo",
    "methods": "Methods: base → ppo",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROME, args=CHROME_FLAGS)
        yield running
        running.close()


class Complaints(list[str]):
    """What the browser's console said against our pages."""

    def listen(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("console", lambda message: self._hear(message.type, message.text, message.location.get("url", "")))

    def _hear(self, kind: str, text: str, url: str) -> None:
        # On a deep link Streamlit's client first asks for its endpoints below the page's path, where there are none.
        if kind == "error" and not re.search(r"/\w+/_stcore/(health|host-config)$", url):
            self.append(f"{text} ({url})")


def _open(browser: Browser, url: str, complaints: Complaints, width: int = 1440, scheme: str = "light") -> Page:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(30_000)
    complaints.listen(page)
    page.goto(url)
    return page


def _settled(page: Page) -> None:
    """Wait until the script has run and its figures are drawn."""
    expect(page.locator("[data-testid='stApp'][data-test-script-state='notRunning']")).to_be_visible(timeout=30_000)
    expect(page.locator("[data-testid='stException']")).to_have_count(0)


@pytest.mark.parametrize("path", list(PAGES))
def test_a_permalink_opens_the_same_view_on_a_fresh_server(server: Server, browser: Browser, path: str) -> None:
    complaints = Complaints()
    page = _open(browser, f"{server.url}/{path}?pair=PPO&alpha=0.5", complaints)
    expect(page.get_by_role("heading", level=1)).to_have_text(PAGES[path])
    expect(page.get_by_text("(α = 0.5)")).to_be_visible()
    if path != "methods":
        expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    _settled(page)
    assert "pair=PPO" in page.url
    assert "alpha=0.5" in page.url
    assert not complaints


def test_moving_between_pages_keeps_the_selection(server: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = _open(browser, f"{server.url}/?pair=DPO&alpha=0.1", complaints)
    expect(page.get_by_role("heading", level=1)).to_have_text("base → dpo")
    for link in ("Circuits", "Distributions", "Intensity", "Methods", "Compare"):
        page.get_by_role("link", name=link).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("base → dpo"))
        expect(page.get_by_text("(α = 0.1)")).to_be_visible()
        _settled(page)
        assert "pair=DPO" in page.url
    assert not complaints


def test_choosing_another_pair_changes_the_page_and_the_url(server: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = _open(browser, server.url, complaints)
    expect(page.get_by_role("heading", level=1)).to_have_text("base → grpo")
    _settled(page)
    page.get_by_role("combobox", name=re.compile("Pair")).click()
    page.get_by_role("option", name="More SFT").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("base → sft-more")
    expect(page).to_have_url(re.compile("pair=More"))
    assert not complaints


def _click_text(page: Page, panel: int, text: str) -> None:
    """Click a node of the circuit graph, where its label is drawn."""
    label = page.locator(".js-plotly-plot").first.locator("text", has_text=re.compile(f"^{text}$")).nth(panel)
    label.scroll_into_view_if_needed()
    box = label.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_a_click_on_a_node_lists_its_values(server: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = _open(browser, f"{server.url}/circuits", complaints)
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    _settled(page)
    _click_text(page, 1, "m3")
    expect(page.get_by_text("strongest inputs")).to_be_visible()
    expect(page.get_by_text("strongest outputs")).to_be_visible()
    expect(page.locator("[data-testid='stMarkdown'] strong", has_text=re.compile("^m3$"))).to_be_visible()
    _settled(page)
    _click_text(page, 0, "logits")
    expect(page.locator("[data-testid='stMarkdown'] strong", has_text=re.compile("^logits$"))).to_be_visible()
    assert not complaints


def test_a_click_on_the_middle_of_an_edge_lists_its_values(server: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = _open(browser, f"{server.url}/circuits?edges=10", complaints)
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    _settled(page)
    for marker in page.locator(".js-plotly-plot").first.locator(".scatterlayer .points path.point").all()[:4]:
        box = marker.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        try:
            expect(page.get_by_text("Difference of strength")).to_be_visible(timeout=5000)
            break
        except AssertionError:
            continue
    expect(page.get_by_text("Difference of strength")).to_be_visible()
    expect(page.locator("[data-testid='stMarkdown'] strong", has_text="->")).to_be_visible()
    assert not complaints


@pytest.mark.parametrize("path", list(PAGES))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_both_schemes(server: Server, browser: Browser, path: str, scheme: str) -> None:
    complaints = Complaints()
    page = _open(browser, f"{server.url}/{path}?pair=PPO", complaints, width=390, scheme=scheme)
    expect(page.get_by_role("heading", level=1)).to_have_text(PAGES[path])
    _settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not complaints


def test_an_impossible_view_says_why(server: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = _open(browser, f"{server.url}/?cohort=both+wrong", complaints)
    page.get_by_role("button", name="Compute it").click()
    expect(page.get_by_text("No question is both wrong")).to_be_visible(timeout=60_000)
    assert not complaints


def test_a_fresh_store_computes_itself_with_visible_progress_and_only_once(
    fresh_server: Server, browser: Browser
) -> None:
    complaints = Complaints()
    page = _open(browser, fresh_server.url, complaints)
    expect(page.get_by_text(re.compile("Being computed|has not been computed"))).to_be_visible()
    expect(page.get_by_role("progressbar").first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("(α = 0.3)").first).to_be_visible(timeout=120_000)
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible(timeout=60_000)
    assert time.monotonic() - fresh_server.started < 120, "the first comparison is on screen within two minutes"
    expect(page.get_by_text(re.compile(r"jobs? to go"))).to_have_count(0, timeout=600_000)
    assert time.monotonic() - fresh_server.started < 600, "every shipped pair within ten"
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("base → grpo")
    assert not complaints
    page.close()
    fresh_server.stop()
    before = len(specs_of(fresh_server.store))
    second = Server(fresh_server.store)
    time.sleep(8)
    second.stop()
    assert len(specs_of(fresh_server.store)) == before
    fresh_server.process = second.process
