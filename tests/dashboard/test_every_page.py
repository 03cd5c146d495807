"""What holds on every page: rules of accessibility, the keyboard, both colour schemes, and a phone.

A page is loaded twice, on a desk and on a phone, and looked at in both schemes each time.
"""

from pathlib import Path
from typing import Literal

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.serving import CHROME, Server
from tests.dashboard.browsing import Complaints, at_rest, open_page, settled

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROME is None, reason="no Chromium on this machine")]

PAGES = {
    "compare": "base → ppo",
    "circuits": "Circuits: base → ppo",
    "distributions": "Distributions: base → ppo",
    "intensity": "Intensity: base → ppo",
    "questions": "Questions: base → ppo",
    "timeline": "Timeline: base → ppo",
    "evidence": "Evidence: base → ppo",
    "runs": "Runs",
    "methods": "Methods: base → ppo",
}
"""The address of every page, and its heading with PPO."""

STATES = (
    "circuits?pick=a5-%3Elogits",
    "distributions?part=Diversity",
    "",  # the front page
    "compare?pair=Nonsense",  # what stands in the link is unknown
    "compare?pair=SmolLM2+GRPO",  # or not computed
)
"""Pages as they look after a click, or where something is amiss."""

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


@pytest.mark.parametrize("path", list(PAGES))
def test_a_page_is_accessible_by_eye_and_keyboard_and_fits_a_phone(shared: Server, browser: Browser, path: str) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/{path}?pair=PPO", complaints)
    expect(page.get_by_role("heading", level=1)).to_have_text(PAGES[path])
    at_rest(page)
    _is_accessible(page)
    assert not _missed_by_the_keyboard(page)
    _in_scheme(page, "dark")
    _is_told_apart(page)

    phone = open_page(browser, f"{shared.url}/{path}?pair=PPO", complaints, width=390, scheme="dark")
    expect(phone.get_by_role("heading", level=1)).to_have_text(PAGES[path])
    settled(phone)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    _in_scheme(phone, "light")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert not complaints


@pytest.mark.parametrize("path", STATES)
def test_what_a_page_may_come_to_is_accessible(shared: Server, browser: Browser, path: str) -> None:
    page = open_page(browser, f"{shared.url}/{path}", Complaints())
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    at_rest(page)
    _is_accessible(page)
    _in_scheme(page, "dark")
    _is_told_apart(page)


def _in_scheme(page: Page, scheme: Literal["light", "dark"]) -> None:
    """Have the system prefer a scheme, and wait until the page follows."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(
        """dark => {
            const ground = getComputedStyle(document.querySelector("[data-testid=stApp]")).backgroundColor;
            return ground.match(/\\d+/)[0] < 128 === dark;
        }""",
        arg=scheme == "dark",
    )
    at_rest(page)


def _is_accessible(page: Page) -> None:
    page.evaluate(AXE)
    _keeps(page, "runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']")


def _is_told_apart(page: Page) -> None:
    """Of what was accessible in one scheme: the rules that look at colours, in the other."""
    _keeps(page, "runOnly: {type: 'rule', values: ['color-contrast', 'link-in-text-block']}")


def _keeps(page: Page, rules: str) -> None:
    figures = "{exclude: [['.main-svg']]}"  # which have a text of their own
    result = page.evaluate(f"axe.run({figures}, {{{rules}, resultTypes: ['violations'], preload: false}})")
    nodes = [node for violation in result["violations"] for node in violation["nodes"]]
    assert not [f"{node['html'][:120]}: {node['failureSummary']}" for node in nodes]


def _missed_by_the_keyboard(page: Page) -> list[str]:
    """The controls that Tab never comes to."""
    page.evaluate(
        """() => {
            const kinds = "a[href], button, input, [role=slider], [role=combobox], [role=tab], [role=radio]";
            const controls = [...document.querySelectorAll("[data-testid=stSidebar], [data-testid=stMain]")]
                .flatMap(part => [...part.querySelectorAll(kinds)])
                .filter(c => c.checkVisibility({opacityProperty: true, visibilityProperty: true}) && !c.disabled)
                .filter(c => !c.closest(".modebar, .js-plotly-plot, canvas"))
                .filter(c => !(c.getAttribute("tabindex") === "-1" && c.closest("[role=group]")));  // of a combobox
            window.controls = new Set(controls);
            window.reached = new Set();
            document.addEventListener("focusin", e => window.reached.add(e.target));
        }"""
    )
    missed: list[str] = []
    for _ in range(6):
        for _ in range(40):
            page.keyboard.press("Tab")
        missed = page.evaluate(
            """() => [...window.controls].filter(c => {
                if (window.reached.has(c)) return false;
                if (c.querySelector("input, button, [tabindex]")) return false;  // a frame around the control itself
                const group = c.closest(
                    "[role=radiogroup], [role=tablist], [data-testid=stButtonGroup], [data-testid=stNumberInput]");
                return !(group && [...window.reached].some(r => group.contains(r)));  // arrows reach the rest of it
            }).map(c => c.outerHTML.slice(0, 160))"""
        )
        if not missed:
            break
    return missed
