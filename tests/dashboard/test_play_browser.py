"""The page Play in a real browser, and the process that answers behind it."""

from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.serving import CHROME, Server
from tests.dashboard.browsing import Complaints, at_rest, click, open_page, plot, settled

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROME is None, reason="no Chromium on this machine")]

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


def _strip(page: Page) -> str:
    """What is written in the first figure."""
    return "".join(plot(page).locator(".scatterlayer text").all_text_contents())


def _says(page: Page, text: str) -> None:
    """Wait until the answers have a text; for the first, until the process has started."""
    page.wait_for_function(
        "text => [...document.querySelector('.js-plotly-plot')?.querySelectorAll('.scatterlayer text') ?? []]"
        ".map(one => one.textContent).join('').includes(text)",
        arg=text,
        timeout=120_000,
    )


def _middle_of(page: Page, edge: str) -> tuple[float, float]:
    """Where an edge of the graph's first panel can be clicked."""
    figure = page.locator(".js-plotly-plot").nth(2)
    figure.scroll_into_view_if_needed()
    found = figure.evaluate(
        """(plot, edge) => {
            for (const trace of plot._fullData)
                for (let i = 0; i < (trace.customdata ?? []).length; i++)
                    if (String(trace.customdata[i]) === edge) {
                        const box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
                        return [box.x + xaxis._offset + xaxis.d2p(trace.x[i]),
                                box.y + yaxis._offset + yaxis.d2p(trace.y[i])];
                    }
        }""",
        edge,
    )
    assert found, edge
    return found[0], found[1]


def test_a_problem_an_edge_and_a_link_that_holds_them(shared: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/play", complaints)
    box = page.get_by_role("textbox", name="A problem for both models")
    expect(box).to_have_value("388+243=", timeout=120_000)
    _says(page, "11␣13␣05␣531■")
    box.fill("678+789=")
    box.press("Enter")
    _says(page, "17␣16␣13␣1367■17␣16␣14␣1467■")
    at_rest(page)
    click(page, plot(page).locator(".scatterlayer text", has_text="7").first)
    expect(page.get_by_role("heading", name="What carries token 2:")).to_be_visible()
    page.get_by_role("button", name="Clear value").first.click()
    expect(page.get_by_role("heading", name="What carries token 8:")).to_be_visible()
    at_rest(page)
    page.mouse.click(*_middle_of(page, "a0->m0"))
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_text("the estimate promised").first).to_be_visible()
    expect(page.get_by_text("base under the changes")).to_be_visible()
    at_rest(page)
    changed, said = _strip(page), page.get_by_text("the estimate promised").all_text_contents()
    assert "ask=678" in page.url
    assert "changes=remove+a0" in page.url.replace("%20", "+")

    page.get_by_role("button", name="Share").click()
    other = open_page(browser, page.get_by_test_id("stCode").inner_text().replace("\n", ""), complaints)
    expect(other.get_by_text("the estimate promised").first).to_be_visible()
    at_rest(other)
    assert _strip(other) == changed
    assert other.get_by_text("the estimate promised").all_text_contents() == said
    assert not complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_passes_the_accessibility_rules(shared: Server, browser: Browser, scheme: str) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/play?changes=swap+m1&target=a0-%3Em0", complaints, 390, scheme)
    expect(page.get_by_text("tuned under the changes")).to_be_visible(timeout=120_000)
    at_rest(page)
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= 390
    page.evaluate(AXE)
    rules = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'], resultTypes: ['violations'], preload: false}"
    result = page.evaluate(f"axe.run({{exclude: [['.main-svg']]}}, {rules})")
    assert not [(violation["id"], violation["nodes"][0]["html"][:200]) for violation in result["violations"]]
    settled(page)
    assert not complaints
