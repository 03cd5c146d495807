"""The front page: what it says, the picture that moves, and where its doors and the navigation lead."""

import re
from base64 import b64decode
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, expect
from streamlit.testing.v1 import AppTest

from benchmarks.serving import CHROME, Server
from dashboard import security, service, site
from dashboard.pattern import FOUND
from probing.figures import moving
from probing.figures.theme import BASE, NEUTRAL, TUNED, blend
from probing.graph import Edge, graph_of
from probing.jobs.plan import Spec
from probing.store.records import JobRow
from tests.conftest import ROOT
from tests.dashboard.apps import open_app
from tests.dashboard.browsing import Complaints, settled, visit, visitor

GRAPH = graph_of(2)

BEFORE = {"input->m0": 1.0, "m0->m1": 1.0, "m1->logits": 2.0}
LATER = {"input->m0": 1.0, "m0->m1": 2.0, "m1->logits": 2.0}
AFTER = {"input->m0": 2.0, "m0->m1": 2.0, "m1->logits": 12.0}

SVG = "{http://www.w3.org/2000/svg}"


def _table(tuned: dict[str, float]) -> pd.DataFrame:
    edges = [Edge.of(name) for name in BEFORE]
    return pd.DataFrame({
        "edge": list(BEFORE),
        "writer": [edge.writer.node for edge in edges],
        "node": [edge.reader.node for edge in edges],
        "kind": [edge.reader.kind for edge in edges],
        "base_strength": list(BEFORE.values()),
        "tuned_strength": [tuned[name] for name in BEFORE],
    })  # fmt: skip


MOMENTS = moving.Moments.of({"step 5": _table(LATER), "step 10": _table(AFTER)})


def _open(**query: str) -> AppTest:
    app = open_app(link=query)
    assert not app.exception
    return app


def _picture(app: AppTest) -> str:
    (shown,) = [html.proto.body for html in app.get("html") if "circuit moving" in html.proto.body]
    return b64decode(shown.split("base64,")[1].split('"')[0]).decode()


# -- the picture -------------------------------------------------------------------------------------------------------


def test_a_lines_width_is_its_share_of_all_strength_and_its_colour_how_that_changed() -> None:
    assert moving.Moments.of({"tuned": _table(AFTER)}).labels == ("base", "tuned")
    assert MOMENTS.shares == pytest.approx(np.array([[1, 1, 2], [0.8, 1.6, 1.6], [0.5, 0.5, 3]]) / 4)
    picture = moving.circuit(GRAPH, MOMENTS, dark=False)
    drawn = ElementTree.fromstring(picture)
    still = [path.attrib["style"] for path in drawn.iter(f"{SVG}path")]
    # The widest is ¾ of all, 9 pixels; 1/8 is a sixth of that: 0.4 + 8.6 / 6. From ¼ to 1/8 is a third of their sum,
    # of which half has the full colour; from ½ to ¾ a fifth.
    falling, rising = blend(NEUTRAL, BASE, 2 / 3), blend(NEUTRAL, TUNED, 0.4)
    assert still == [f"stroke-width:1.8;stroke:{falling}"] * 2 + [f"stroke-width:9.0;stroke:{rising}"]
    rule = re.search(r"@keyframes e2\{(.*?\})\}", picture)
    assert rule is not None
    looks = re.findall(r"([\d.]+)%\{stroke-width:([\d.]+);stroke:(#\w+)\}", rule[1])
    assert [float(width) for _, width, _ in looks] == pytest.approx([6.1, 5.0, 9.0, 9.0, 6.1])
    assert [colour for *_, colour in looks][::4] == [NEUTRAL] * 2, "as in the base"
    assert [float(when) for when, *_ in looks] == sorted(float(when) for when, *_ in looks)
    assert [text.text for text in drawn.iter(f"{SVG}text")][-3:] == ["base", "step 5", "step 10"]


def test_a_still_picture_shows_the_end_and_light_and_dark_differ() -> None:
    still = moving.circuit(GRAPH, MOMENTS, dark=False, moving=False)
    assert "animation" not in still
    seen = [text for text in ElementTree.fromstring(still).iter(f"{SVG}text") if text.get("style") == "opacity:1"]
    assert [text.text for text in seen] == ["step 10"]
    assert "#0f141a" not in still
    assert "#0f141a" in moving.circuit(GRAPH, MOMENTS, dark=True)
    assert "m1->logits (50 %)" in moving.in_words(MOMENTS)
    assert "m1->logits (75 %)" in moving.in_words(MOMENTS)


def test_a_deep_model_fits() -> None:
    graph = graph_of(32)
    picture = ElementTree.fromstring(moving.circuit(graph, MOMENTS, dark=False))
    scales = {float(g.attrib["transform"].split("scale(")[1][:-1]) for g in picture.iter(f"{SVG}g")}
    (scale,) = scales
    assert 22 * scale < 2 * (590 - 70) / (2 * 32 + 1), "nodes of one lane do not touch"


# -- what it says, and where it leads ----------------------------------------------------------------------------------


def test_the_front_page_says_what_the_readme_says_first() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("# RL Circuit Explorer\n\n", 1)[1]
    assert text.startswith(f"{site.SAYS} ")
    assert site.SAYS.count(".") == 1


def test_every_page_is_in_the_navigation_and_every_door_leads_somewhere() -> None:
    entries = [entry for entries in site.SECTIONS.values() for entry in entries]
    assert sorted(entry.name for entry in entries) == sorted(path.stem for path in (ROOT / "pages").glob("*.py"))
    assert {door.to for door in site.DOORS} <= set(entries)
    assert {f"/{entry.name}" for entry in entries} | {"/"} == {route.path for route in security.ROUTES}


def test_the_picture_is_of_a_training_that_was_followed(full: Path) -> None:
    app = _open()
    assert ">step 120</text>" in _picture(app)
    assert "animation" in _picture(app)
    assert app.markdown[0].value.endswith(site.SAYS)
    assert not app.selectbox, "nothing here is of the pair that is chosen"
    app.toggle(key="moves").set_value(False).run()
    assert "animation" not in _picture(app)


def test_what_is_computed_is_said_where_there_is_nothing_yet(empty: Path) -> None:
    assert "has not been computed yet" in _open().info[0].value
    service.queue_shipped()
    assert "Being computed: **base → grpo**" in _open().info[0].value


def _progress(app: AppTest) -> str:
    bar = next(iter(app.main.get("progress")))
    return str(bar.proto.text)


def test_a_page_that_waits_shows_the_job_that_is_done_first_of_those_that_make_it(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBING_START", "evidence")
    service.queue_shipped()
    queue = service.store().queue
    assert _progress(_open(pair="GRPO")) == "Starting", "other methods, circuits and checkpoints come later"
    assert _progress(_open(pair="DPO")) == "In the queue, 2 ahead"
    first, _ = queue.claim("1-worker") or pytest.fail("nothing is queued")
    queue.report(first, "1-worker", "Scoring base", 40, 100)
    assert _progress(_open(pair="GRPO")) == "Scoring base: 40 of 100"
    assert _progress(_open(pair="PPO")) == "In the queue, 1 ahead"
    queue.submit(Spec("smollm2-dpo", "word-problems").as_json(), urgent=True)
    assert _progress(_open(pair="PPO")) == "In the queue, 2 ahead", "what somebody waits for comes first"
    queue.end(first, "failed", "No luck.")
    assert _progress(_open(pair="GRPO")).startswith("In the queue"), "training is followed from the same comparison"


def test_jobs_are_counted_as_ahead_in_the_order_in_which_they_are_done(empty: Path) -> None:
    queue, rng = service.store().queue, np.random.default_rng(0)
    for number, urgent in enumerate(rng.random(12) < 0.4):
        queue.submit({"number": number}, urgent=bool(urgent))
    queue.claim("1-worker")
    rows = sorted((JobRow.of(row) for row in queue.jobs().to_dict("records")), key=JobRow.turn)
    done = [row.job_id for row in rows if row.status == "running"]
    while claimed := queue.claim("2-worker"):
        done.append(claimed[0])
        queue.end(claimed[0], "done")
    assert [row.job_id for row in rows] == done


def test_a_link_to_what_once_stood_here_opens_it_where_it_stands_now(full: Path) -> None:
    app = _open(pair="PPO", alpha="0.5")
    assert app.title[0].value == "base → ppo"
    assert any("(α = 0.5)" in caption.value for caption in app.caption)


def test_the_papers_pattern_is_explained_before_a_verdict_uses_it(full: Path) -> None:
    app = _open(pair="PPO")
    said = [str(element.value) for element in app.main if element.type in ("title", "caption", "markdown", "heading")]
    explained = next(place for place, text in enumerate(said) if FOUND in text)
    assert explained == 2, "below the title and what the page is about"
    assert not any(word in text for word in ("pattern", "PPO lowered") for text in said[:explained])
    assert "PPO lowered intensity" in said[explained + 1]


@pytest.mark.browser
@pytest.mark.skipif(CHROME is None, reason="no Chromium on this machine")
def test_the_picture_stands_still_for_those_who_want_less_motion(shared: Server, browser: Browser) -> None:
    complaints = Complaints()
    who = visitor(browser, 390, "dark")
    page = visit(who, shared.url, complaints)
    picture = page.get_by_role("img", name=re.compile("The circuit of a model from base to step 120"))
    expect(picture).to_be_visible()
    settled(page)
    assert "#0f141a" in picture.evaluate("image => atob(image.src.split(',')[1])"), "dark"
    assert "moving" in str(picture.get_attribute("class"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.emulate_media(reduced_motion="reduce")
    expect(picture).to_have_class("circuit still")
    assert "animation" not in picture.evaluate("image => atob(image.src.split(',')[1])")
    expect(page.get_by_text("Move", exact=True)).to_be_hidden()
    page.get_by_test_id("stMain").get_by_role("link", name="Compare").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("base → grpo")
    assert not complaints
