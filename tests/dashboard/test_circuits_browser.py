"""Circuits on a phone, in a real browser: one panel, a picked edge in its own look, a key that is drawn whole."""

from playwright.sync_api import Browser, expect

from benchmarks.serving import Server
from probing.figures.theme import BASE, PICKED, faded
from tests.dashboard.browsing import Complaints, at_rest, plot, visit

PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Mobile/15E148"


def test_a_phone_shows_the_difference_with_its_key_and_a_halo_behind_the_picked_edge(
    shared: Server, browser: Browser
) -> None:
    complaints = Complaints()
    phone = browser.new_context(viewport={"width": 390, "height": 844}, user_agent=PHONE)
    page = visit(phone, f"{shared.url}/circuits?pick=a5-%3Elogits", complaints)
    expect(plot(page).locator(".annotation-text")).to_have_text(["Difference"])
    at_rest(page)
    drawn = plot(page).locator(".legend2")
    expect(drawn).to_contain_text("weaker after tuning")
    key, figure = drawn.bounding_box(), plot(page).bounding_box()
    assert key and figure
    assert figure["x"] <= key["x"] and key["x"] + key["width"] <= figure["x"] + figure["width"]
    assert key["y"] + key["height"] <= figure["y"] + figure["height"]
    assert figure["x"] + figure["width"] <= 390
    lines = plot(page).locator(".js-line").evaluate_all("all => all.map(e => [e.style.stroke, e.style.strokeOpacity])")
    rgb = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in (PICKED, BASE)]
    halo, own = (f"rgb({', '.join(map(str, colour))})" for colour in rgb)
    assert [halo, "0.4"] in lines, faded(PICKED, 0.4)
    assert [own, "1"] in lines[lines.index([halo, "0.4"]) :], "the edge is drawn on its halo, in its own colour"
    expect(plot(page, 2).locator(".cbtitle")).to_contain_text("difference")
    assert not complaints
    phone.close()
