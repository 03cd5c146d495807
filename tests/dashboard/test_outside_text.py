"""Texts from outside (links, the registry, files, messages) are shown as the characters that they are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from streamlit.testing.v1 import AppTest

from benchmarks.serving import CHROME, ROOT, Server, compute_shipped
from dashboard import service
from dashboard.words import as_text
from probing.cuts import Cut
from probing.jobs.plan import Spec
from tests.dashboard.apps import open_app

EVIL = (
    "[evil](https://evil.example) https://evil.example www.evil.example evil@evil.example <b>evil</b> :evil: "
    ":streamlit: :red[evil] :material/evil: **evil** _evil_ `evil` $evil$ ~~evil~~ ![evil](https://evil.example/x.png) "
    "[evil]: x"
)
ACTIVE = re.compile(
    r"\]\(|\]:|://|www\.|evil@evil|<b>|</b>|:(evil|streamlit|red|material)|\*evil|_evil|`|\$|~~|!\[|^#|^- |^1[.)]"
)
"""What would be more than characters to Streamlit, if no backslash and no joiner kept it apart."""

TITLES = {"pair": f"Pair {EVIL}", "questions": f"Questions {EVIL}", "kind": f"kind {EVIL}", "about": f"About {EVIL}"}
FOLDER = "www.evil.example [evil](evil.example) evil@evil.example <b>evil :evil: **evil** `evil`"


_OUR_LINK = re.compile(r"\[[^\[\]\\]*\]\(/[a-z]+\?[\w%+&=.~-]*\)")
"""A link to a page of ours, whose query is escaped."""


def _is_active(text: str) -> bool:
    return ACTIVE.search(re.sub(r"\\[!-/:-@\[-`{-~]", "", text)) is not None


@pytest.mark.parametrize(
    "text", [EVIL, FOLDER, *EVIL.split(), "# evil", "- evil", "1. evil", "12) evil", "a\n\n# evil"]
)
def test_a_text_made_plain_has_nothing_that_acts_and_every_character(text: str) -> None:
    assert not _is_active(as_text(text))
    said = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", as_text(text)).replace("\u2060", "")
    assert said == " ".join(text.split())


def test_a_text_made_plain_is_of_bounded_length_and_on_one_line() -> None:
    assert len(as_text("x" * 100_000)) == 500
    assert as_text("a\r\n\tb\u202ec\x00") == "a b c"
    assert as_text("base → SmolLM2-135M, α = 0.3 (both right); see a.b: “no”") == (
        "base → SmolLM2-135M, α = 0.3 (both right); see a.b: “no”"
    ), "nothing is done to what needs nothing"


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store whose pair, questions and models have evil names."""
    folder = tmp_path_factory.mktemp("evil")
    lines = (ROOT / "data" / "questions" / "addition.jsonl").read_text().splitlines()[:48]
    rows = [json.loads(line) | {"id": f"{number} {FOLDER}"} for number, line in enumerate(lines)]
    (folder / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / FOLDER).symlink_to(ROOT / "data" / "zoo" / "base")
    tuned = ROOT / "data" / "zoo" / "grpo"
    (folder / "pairs.toml").write_text(
        f'[questions.few]\ntitle = {json.dumps(TITLES["questions"])}\nfile = "few.jsonl"\ngrading = "last-number"\n'
        f"[pairs.small]\ntitle = {json.dumps(TITLES['pair'])}\nalgorithm = {json.dumps(EVIL)}\n"
        f'kind = {json.dumps(TITLES["kind"])}\nabout = {json.dumps(TITLES["about"])}\nquestions = ["few"]\n'
        f'base = {json.dumps(str(folder / FOLDER))}\ntuned = "{tuned}"\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBING_PAIRS", str(folder / "pairs.toml"))
        patch.setenv("PROBING_STORE", str(folder / "store.duckdb"))
        compute_shipped(folder / "store.duckdb")
        service.store.cache_clear()
        store = service.store()
        job = store.queue.submit(Spec("small", "few", (Cut(0.7),)).as_json())
        store.queue.end(job, "failed", f"It failed: {EVIL}")
        yield folder
        service.store().close()
        service.store.cache_clear()


def _shown(app: AppTest) -> list[str]:
    """All texts that Streamlit reads as Markdown."""
    kinds = ("title", "header", "subheader", "markdown", "caption", "info", "warning", "error", "success", "toast")
    texts = [str(element.value) for kind in kinds for element in app.get(kind)]
    texts += [str(text) for metric in app.metric for text in (metric.label, metric.value, metric.help)]
    labelled = (*app.button, *app.expander, *app.selectbox, *app.slider, *app.toggle, *app.tabs, *app.text_input)
    texts += [element.label for element in labelled]
    return texts + [progress.proto.text for progress in app.get("progress")]


@pytest.mark.parametrize(
    ("page", "state", "link"),
    [
        *((page, {}, {}) for page in ("compare", "circuits", "distributions", "intensity", "questions", "timeline")),
        ("methods", {}, {}),
        ("transplant", {}, {}),
        ("runs", {}, {}),
        ("compare", {"cohort": "base_only"}, {}),  # which nobody has computed
        ("compare", {"alpha": 0.7}, {}),  # whose job failed
        *(("compare", {}, {name: EVIL}) for name in ("pair", "questions", "cohort", "alpha")),
    ],
)
def test_no_page_makes_more_of_a_text_from_outside_than_characters(
    evil: Path, page: str, state: dict[str, object], link: dict[str, str]
) -> None:
    app = open_app(page, link, **state)
    assert not app.exception
    shown = _shown(app)
    assert any("evil" in text for text in shown)
    own = [_OUR_LINK.sub("", text) for text in shown if "evil" in text]
    assert not [text for text in own if _is_active(text.replace("**", "").removeprefix(":material/"))]


def test_a_fault_that_quotes_a_file_is_shown_as_characters(evil: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_PAIRS", str(evil / f"{FOLDER}.toml"))
    app = open_app()
    (said,) = (error.value for error in app.error)
    assert "evil" in said
    assert not _is_active(said)


def _foreign(page: Page) -> list[str]:
    """Where links and pictures lead that do not lead here."""
    found: list[str] = page.evaluate("[...document.querySelectorAll('a[href], img[src]')].map(e => e.href ?? e.src)")
    own = page.evaluate("location.origin")
    return [url for url in found if not url.startswith((own, "data:"))]


@pytest.mark.browser
@pytest.mark.skipif(CHROME is None, reason="needs Chromium or Chrome")
def test_no_link_picture_or_markup_from_outside_reaches_the_browser(evil: Path, browser: Browser) -> None:
    service.store().close()
    service.store.cache_clear()
    server = Server(evil / "store.duckdb")
    asked: list[str] = []
    try:
        page = browser.new_context().new_page()
        page.on("request", lambda request: asked.append(request.url))
        for path in ("", "questions", "runs"):
            page.goto(f"{server.url}/{path}")
            expect(page.locator("[data-testid='stApp'][data-test-script-state='notRunning']")).to_be_visible(
                timeout=30_000
            )
            expect(page.get_by_test_id("stMain")).to_contain_text("[evil](", timeout=30_000)
            shown = page.get_by_test_id("stMain").inner_text().replace("\u2060", "")
            assert "www.evil.example [evil](evil.example) evil@evil.example <b>evil :evil: **evil** `evil`" in shown
            assert _foreign(page) == []
        page.goto(f"{server.url}/compare?pair={EVIL.replace('#', '%23')}")
        expect(page.get_by_text("The link asks for the pair")).to_be_visible(timeout=30_000)
        said = page.get_by_text("The link asks for the pair").inner_text().replace("\u2060", "")
        assert f"the pair “{EVIL}”" in said
        assert _foreign(page) == []
        assert page.locator(".stAlert :is(a, b, code, del, em, strong, img)").count() == 0
    finally:
        server.stop()
    assert not [url for url in asked if not url.startswith((server.url, "data:", "blob:"))]
