"""The app in a real browser, on a server started as `make app` starts it."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from benchmarks.serving import CHROME, Server
from tests.dashboard.browsing import (
    Complaints,
    at_rest,
    click,
    node,
    open_page,
    picked,
    plot,
    settled,
)
from tests.dashboard.conftest import specs_of
from tests.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROME is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def elsewhere(computed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another server, on which nobody has looked at anything but links."""
    running = Server(Path(shutil.copy(computed, tmp_path_factory.mktemp("elsewhere") / "store.duckdb")))
    yield running
    running.stop()


# -- the view is the link ----------------------------------------------------------------------------------------------


def _slider(page: Page, label: str) -> Locator:
    return page.get_by_role("slider", name=label).first


VIEWS = {
    "compare?pair=PPO&alpha=0.5": ["base → ppo", "(α = 0.5)"],
    "circuits?alpha=0.5&changed=weakened&edges=20&kinds=mlp&kinds=v&pair=PPO&panels=difference&pick=m3&sure=true"
    "&trace=true": ["Circuits: base → ppo", "under 3 filters", "strongest outputs"],
    "circuits?by=share&pair=PPO&pick=a5-%3Elogits&share=55": ["Circuits: base → ppo", "Difference of strength"],
    "distributions?bins=40&logx=true&pair=PPO": ["Distributions: base → ppo", "Log counts"],
    "distributions?metric=Gini+coefficient&pair=PPO&part=By+question": ["Inequality of edge strengths"],
    "intensity?cut_metric=Loss&pair=PPO&section=Against+the+cut": ["Intensity: base → ppo", "Each cut has its own"],
    "intensity?group=reading+layer&pair=PPO": ["Intensity: base → ppo", "large one is their mean"],
    "questions?pair=PPO&q=add-0037&search=add-003": ["Questions: base → ppo", "Question add-0037"],
    "timeline?among=30&pair=PPO&step=20&step_edges=30": ["Timeline: base → ppo", "Step 20"],
    "methods?alpha=0.5&pair=PPO": ["Methods: base → ppo", "the first 8 tokens of an answer"],
}
"""Links to a view of each page that is not its default one, and what stands there."""


@pytest.mark.parametrize("link", list(VIEWS))
def test_a_link_opens_the_same_view_on_another_server(elsewhere: Server, browser: Browser, link: str) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{elsewhere.url}/{link}", complaints)
    expect(page.get_by_role("heading", level=1)).to_contain_text("base → ppo")
    settled(page)
    for text in VIEWS[link]:
        _shown(page, text)
    for name, label in (("edges", "Edges in each panel"), ("bins", "Bins"), ("share", "Share of the total |score|, %")):
        if found := re.search(rf"[?&]{name}=(\d+)", link):
            expect(page.get_by_test_id("stSliderThumbValue").get_by_text(found[1], exact=True).first).to_be_visible()
            assert _slider(page, label).count()
    assert sorted(page.url.split("?")[1].split("&")) == sorted(link.split("?")[1].split("&"))
    assert not complaints


def _shown(page: Page, text: str) -> None:
    """Wait for a text somewhere: on the page, in a figure, or in a table (whose cells stand beside its canvas)."""
    page.wait_for_function(
        "text => [...document.querySelectorAll('[data-testid=stMain], canvas')]"
        ".some(part => part.textContent.includes(text))",
        arg=text,
    )


def test_moving_between_pages_keeps_the_selection(shared: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/compare?pair=DPO&alpha=0.1", complaints)
    expect(page.get_by_role("heading", level=1)).to_have_text("base → dpo")
    settled(page)
    for link in ("Circuits", "Distributions", "Intensity", "Questions", "Timeline", "Methods", "Compare"):
        page.get_by_role("link", name=link).click()
        own = "" if link == "Compare" else f"{link}: "
        expect(page.get_by_role("heading", level=1)).to_have_text(f"{own}base → dpo")
        expect(page.get_by_text("(α = 0.1)")).to_be_visible()
        settled(page)
        expect(page).to_have_url(re.compile("pair=DPO"))
    assert not complaints


def test_an_unknown_pair_in_the_link_is_named(shared: Server, browser: Browser) -> None:
    page = open_page(browser, f"{shared.url}/circuits?pair=Nonsense", Complaints())
    expect(page.get_by_text("The link asks for the pair “Nonsense”")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text("Circuits: base → grpo")


# -- Compare -----------------------------------------------------------------------------------------------------------


def test_what_changed_and_how_sure_is_on_one_screen(shared: Server, browser: Browser) -> None:
    page = open_page(browser, f"{shared.url}/compare", Complaints())
    settled(page)
    expect(plot(page, 2).locator(".main-svg").first).to_be_visible()
    for part in (page.get_by_role("heading", level=1), page.get_by_text("GRPO lowered intensity by"),
                 *page.get_by_test_id("stMetric").all(), plot(page, 0), plot(page, 1), plot(page, 2)):  # fmt: skip
        box = part.bounding_box()
        assert box is not None
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 900


def _grid(page: Page) -> list[list[str]]:
    """The cells of the first table, as its canvas describes them to screen readers once it is drawn."""
    read = """() => {
        const rows = [...document.querySelector("canvas table[role=grid]")?.tBodies[0]?.rows ?? []];
        const cells = rows.map(row => [...row.querySelectorAll("td")].map(cell => cell.textContent));
        return cells.length && cells.every(row => row.length > 5) && cells;
    }"""
    return page.wait_for_function(read).json_value()  # type: ignore[no-any-return]


def test_the_leaderboard_sorts_by_number_and_its_rows_are_links(shared: Server, browser: Browser) -> None:
    page = open_page(browser, f"{shared.url}/compare", Complaints())
    settled(page)
    table = page.get_by_test_id("stDataFrame").first
    page.get_by_role("heading", name="All pairs at all cuts").evaluate("it => it.scrollIntoView()")
    page.wait_for_timeout(500)
    before = _grid(page)
    assert float(before[0][4]) == pytest.approx(-62, abs=1)
    box = table.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 25, box["y"] + 52)
    page.wait_for_timeout(300)
    with page.context.expect_page() as opened:
        page.mouse.click(box["x"] + 25, box["y"] + 52)
    expect(opened.value.get_by_role("heading", level=1)).to_have_text("base → grpo")
    expect(opened.value.get_by_text("(α = 0.03)")).to_be_visible()
    # Where a column's header lies is known to the canvas only: click along the row until the order is by intensity.
    for x in range(int(box["width"] * 0.3), int(box["width"] * 0.8), 40):
        page.mouse.click(box["x"] + x, box["y"] + 15)
        page.wait_for_timeout(400)
        numbers = [float(row[4]) for row in _grid(page)]
        if numbers in (sorted(numbers), sorted(numbers, reverse=True)):
            break
    assert numbers in (sorted(numbers), sorted(numbers, reverse=True))


# -- Circuits ----------------------------------------------------------------------------------------------------------


def test_a_click_on_a_node_or_an_edge_or_a_cell_shows_its_values(shared: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/circuits?edges=12", complaints)
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    settled(page)
    click(page, node(page, 1, "m3"))
    picked(page, "m3")
    expect(page.get_by_text("strongest inputs")).to_be_visible()
    assert "pick=m3" in page.url
    click(page, node(page, 0, "logits"))
    picked(page, "logits")
    for marker in plot(page).locator(".scatterlayer .points path.point").all()[:6]:
        click(page, marker)
        settled(page)
        if page.get_by_text("Difference of strength").count():
            break
    expect(page.get_by_text("Difference of strength")).to_be_visible()
    expect(page.get_by_text(re.compile("95 % interval"))).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(3)  # graph, the edge's questions, matrix
    settled(page)
    matrix = page.locator(".js-plotly-plot").last
    choice = page.get_by_role("combobox", name=re.compile("Node or edge"))
    before = choice.input_value()
    click(page, matrix.locator(".scatterlayer .points path.point").nth(100))
    expect(choice).not_to_have_value(before)
    settled(page)
    name = choice.input_value()
    assert "->" in name
    expect(page).to_have_url(re.compile("pick=[^&]*-%3E"))
    picked(page, name)
    assert page.locator(".js-plotly-plot").last.locator(".shapelayer path").count() == 3, "outlined in every panel"
    assert not complaints


def test_the_selection_survives_a_filter_and_nothing_jumps(shared: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/circuits?pick=m3", complaints)
    settled(page)
    picked(page, "m3")

    def places() -> list[dict]:
        parts = (plot(page), node(page, 0, "m3"), node(page, 2, "input"), page.get_by_role("button", name="Filter"))
        return [{k: round(v) for k, v in (part.bounding_box() or {}).items() if k != "width"} for part in parts]

    at_rest(page)
    before = places()
    _slider(page, "Edges in each panel").press("ArrowRight")
    at_rest(page)
    assert places() == before
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("button", name="mlp").or_(page.get_by_role("checkbox", name="mlp")).first.click()
    page.keyboard.press("Escape")
    expect(page.get_by_text("under 1 filters")).to_be_visible()
    picked(page, "m3")
    at_rest(page)
    assert places()[:3] == before[:3]
    assert "kinds=mlp" in page.url
    assert "pick=m3" in page.url
    assert not complaints


def _strong_edges(page: Page) -> int:
    """How many edges of the graph are drawn and not faded, without the rails on which q, k and v enter their block."""
    lines = plot(page).locator(".scatterlayer .lines path:not([style*='stroke-opacity: 0.12'])")
    drawn = sum(d.count("M") for d in lines.evaluate_all("paths => paths.map(p => p.getAttribute('d'))"))
    return int(drawn) - 6


def test_tracing_highlights_every_path_through_a_node(shared: Server, browser: Browser) -> None:
    page = open_page(browser, f"{shared.url}/circuits?pick=m3&panels=tuned&edges=30", Complaints())
    picked(page, "m3")
    expect(plot(page).locator(".scatterlayer .lines path[style*='stroke-opacity: 0.12']").first).to_be_attached()
    own = _strong_edges(page)
    page.get_by_text("Trace paths").click()
    expect(page).to_have_url(re.compile("trace=true"))
    settled(page)
    until(lambda: _strong_edges(page) > own, 30)
    settled(page)
    assert 0 < own < _strong_edges(page) < 30
    page.goto(f"{shared.url}/circuits?panels=tuned&edges=30")
    settled(page)
    until(lambda: _strong_edges(page) == 30, 30)
    settled(page)
    assert _strong_edges(page) == 30


# -- Questions and Timeline --------------------------------------------------------------------------------------------


def test_a_question_is_resolved_token_by_token_on_demand(server: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{server.url}/questions?q=add-0026", complaints)
    expect(page.locator(".tokens .cut").first).to_be_visible()
    assert page.locator(".tokens .scored-base").count() == 5
    assert page.locator(".tokens .scored-tuned").count() == 5
    page.get_by_role("button", name="Compute token by token").click()
    expect(page.get_by_role("progressbar").first).to_be_visible()
    expect(page.get_by_text("The bars add up to the score")).to_be_visible(timeout=90_000)
    settled(page)
    expect(plot(page).locator(".barlayer .point").first).to_be_attached()
    page.reload()
    expect(page.get_by_text("The bars add up to the score")).to_be_visible()
    assert not complaints


def test_the_slider_moves_the_circuit_through_training_and_it_plays(shared: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/timeline", complaints)
    expect(page.locator(".js-plotly-plot")).to_have_count(4)
    settled(page)
    _shown(page, "Step 120")
    _slider(page, "Training step").press("ArrowLeft")
    _shown(page, "Step 100 − base")
    expect(page).to_have_url(re.compile("step=100"))
    steps = page.evaluate("history.length")
    page.get_by_role("button", name="Play").click()
    _shown(page, "Step 120 − base")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    expect(page).not_to_have_url(re.compile("step="))
    assert page.evaluate("history.length") <= steps + 1, "what was played is one step of the history"
    assert not complaints


# -- taking things away ------------------------------------------------------------------------------------------------


def test_a_figure_and_its_numbers_can_be_taken_away(shared: Server, browser: Browser, tmp_path: Path) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/distributions?part=Concentration", complaints)
    settled(page)
    found = {}
    for label, ending in {
        "Figure as interactive HTML": "html",
        "Figure as SVG": "svg",
        "Figure as PDF": "pdf",
        "Figure as PNG": "png",
        "Numbers as CSV": "csv",
        "Numbers as Parquet": "parquet",
    }.items():
        page.get_by_role("button", name="Export").nth(1).click()
        with page.expect_download(timeout=60_000) as download:
            page.get_by_role("button", name=label).click()
        assert download.value.suggested_filename == f"grpo_addition_both-correct_a0.3_lorenz.{ending}"
        found[ending] = tmp_path / download.value.suggested_filename
        download.value.save_as(found[ending])
        page.keyboard.press("Escape")
        page.wait_for_timeout(300)
    csv, parquet = pd.read_csv(found["csv"]), pd.read_parquet(found["parquet"])
    pd.testing.assert_frame_equal(csv, parquet, rtol=1e-12)
    assert set(csv["trace"]) == {"all equal", "base", "tuned"}
    assert found["png"].read_bytes().startswith(b"\x89PNG")
    assert "share of all strength" in found["svg"].read_text()
    alone = browser.new_page()
    alone.goto(found["html"].as_uri())
    expect(alone.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    alone.close()
    assert not complaints


def test_a_circuit_taken_away_comes_back(shared: Server, browser: Browser, tmp_path: Path) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/circuits?edges=15", complaints)
    settled(page)
    shown = page.get_by_text("edges shown").inner_text().split()[0]
    page.get_by_role("button", name="Circuit as a file").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="EAP-IG JSON").click()
    file = tmp_path / "circuit.json"
    download.value.save_as(file)
    assert str(sum(edge["in_graph"] for edge in json.loads(file.read_text())["edges"].values())) == shown
    page.locator("input[type=file]").set_input_files(file)
    expect(page.get_by_text(f"Only the {shown} edges of the circuit in circuit.json are shown")).to_be_visible()
    settled(page)
    assert not complaints


# -- states ------------------------------------------------------------------------------------------------------------


def test_an_impossible_view_says_why_and_offers_nothing(shared: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{shared.url}/compare?cohort=both+wrong", complaints)
    expect(page.get_by_text("No question is both wrong")).to_be_visible()
    settled(page)
    expect(page.get_by_role("button", name="Compute it")).to_have_count(0)
    assert not complaints


def test_a_fresh_store_computes_itself_with_visible_progress(fresh_server: Server, browser: Browser) -> None:
    complaints = Complaints()
    page = open_page(browser, f"{fresh_server.url}/compare", complaints)
    expect(page.get_by_text(re.compile("Being computed|has not been computed"))).to_be_visible()
    expect(page.get_by_role("progressbar").first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("(α = 0.3)").first).to_be_visible(timeout=120_000)
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible(timeout=60_000)
    assert time.monotonic() - fresh_server.started < 120, "the first comparison is on screen within two minutes"
    expect(page.get_by_text(re.compile(r"jobs? to go"))).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("base → grpo")
    assert not complaints


def test_a_server_on_a_complete_store_computes_nothing_again(server: Server) -> None:
    before = len(specs_of(server.store))
    assert before
    time.sleep(8)
    assert len(specs_of(server.store)) == before
