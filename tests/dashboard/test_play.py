"""The page Play over the process that it asks, on a pair that ships; and what it draws and says of what comes back."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import bench, playing, service
from probing import own_pairs
from probing.errors import PersonError
from probing.figures import answers, wiring
from probing.figures.theme import PICKED
from probing.graph import graph_of
from probing.pairs import load_registry
from probing.playground import Change, Chosen, Experiment, Outcome, Said, Side
from tests.dashboard.apps import open_app

# -- pure --------------------------------------------------------------------------------------------------------------

GRAPH = graph_of(2)


def _said(text: str, right: bool | None) -> Said:
    return Said((*text, "</s>"), tuple(np.linspace(0.5, 1.0, len(text) + 1)), text, right)


def _side(text: str, right: bool, changed: str | None = None, promised: float | None = None) -> Side:
    chosen = Chosen("3", 0.75, 1.5, (("3", 0.75), ("4", 0.2), (" ", 0.05)))
    without = None if changed is None else Chosen("3", 0.25, -1.0, (("4", 0.6), ("3", 0.25)))
    scores = np.linspace(-1, 1, GRAPH.size, dtype=np.float32)
    return Side(
        _said(text, right), None if changed is None else _said(changed, False), chosen, without, promised, scores
    )


PLAIN = Outcome(_side("12 3", False), _side("12 4", True), 3, GRAPH, 0.1)
CHANGED = Outcome(_side("12 3", False, "12 4", -1.0), _side("12 4", True, "12 4", -2.6), 3, GRAPH, 0.1)


def test_a_change_is_written_and_read_alike() -> None:
    for change in (Change("zero", "a0->m0"), Change("mean", "m2->a5<q>"), Change("swap", "a0")):
        assert playing.change_of(playing.said(change)) == change
    for nonsense in ("", "remove", "remove ", "delete a0", "zero:a0->m0"):
        with pytest.raises(PersonError):
            playing.change_of(nonsense)


def test_changes_that_a_graph_does_not_have_are_told_apart() -> None:
    texts = ["remove a0->m0", "swap a1", "remove a7->m0", "remove m0->a0<q>", "average logits", "hello"]
    changes, unknown = playing.known(texts, GRAPH)
    assert changes == [Change("zero", "a0->m0"), Change("swap", "a1")]
    assert unknown == texts[2:]


def test_the_strip_has_a_place_for_every_token_and_a_frame_for_the_chosen_one() -> None:
    figure = answers.strip(CHANGED)
    clickable = [trace for trace in figure.data if trace.type == "scatter"]
    assert [len(trace.customdata) for trace in clickable] == [5, 5, 5, 5]
    assert [list(trace.text) for trace in clickable] == [
        ["1", "2", "␣", "3", "■"], ["1", "2", "␣", "<b>4</b>", "■"],
        ["1", "2", "␣", "<b>4</b>", "■"], ["1", "2", "␣", "4", "■"],
    ]  # fmt: skip
    assert [note.text for note in figure.layout.annotations] == [
        "base: wrong ✗", "base under the changes: wrong ✗", "tuned: right ✓", "tuned under the changes: wrong ✗",
    ]  # fmt: skip
    frames = figure.layout.shapes
    assert [(shape.x0 + shape.x1) / 2 for shape in frames] == pytest.approx([3.0] * 4)
    assert {shape.line.color for shape in frames} == {PICKED}
    for trace, shape in zip(clickable, frames, strict=True):
        assert trace.y[3] == pytest.approx((shape.y0 + shape.y1) / 2)


def test_a_long_answer_goes_on_in_the_next_line_and_no_two_cells_share_a_place() -> None:
    long = Outcome(_side("1" * 60, False, "2" * 70, 0.0), _side("12 4", True, "1", 0.0), 65, GRAPH, 0.1)
    figure = answers.strip(long)
    clickable = [trace for trace in figure.data if trace.type == "scatter"]
    places = [(x, y) for trace in clickable for x, y in zip(trace.x, trace.y, strict=True)]
    assert len(places) == len(set(places)) == 61 + 71 + 5 + 2
    assert max(x for x, _ in places) < 30
    cells = [(x, y) for trace in figure.data if trace.type == "heatmap" for y in trace.y for x in trace.x]
    assert sorted(cells) == sorted(places)
    assert figure.layout.yaxis.range[0] < min(y for _, y in places) - 0.5


def test_probabilities_before_and_under_the_changes_stand_beside_each_other() -> None:
    before, under = answers.likeliest(CHANGED).data[:2]
    assert list(before.text) == ["3", "4", "␣"]
    assert list(before.x) == [0.75, 0.2, 0.05]
    assert list(under.x) == [0.25, 0.6, None]
    assert len(answers.likeliest(PLAIN).data) == 2


def test_a_verdict_holds_the_promise_against_what_happened() -> None:
    assert bench.verdict("base", CHANGED.base) == (
        "**base**: the estimate promised −1.00 nats for “3”; really it was −2.50: 2.50 times as much. Its probability "
        "went from 75 % to 25 %. Answer: “12 3” became “12 4”, which is wrong."
    )
    assert "really it was −2.50: about as promised." in bench.verdict("tuned", CHANGED.tuned)
    assert "Answer: still “12 4”." in bench.verdict("tuned", CHANGED.tuned)


def test_what_a_model_says_is_shown_as_characters() -> None:
    evil = _side("`<b>*x*", False, "[a](http://b)", -1.0)
    assert "Answer: “\\`\\<b\\>\\*x\\*” became “\\[a\\](http:\u2060//b)”" in bench.verdict("base", evil)
    hovered = answers.strip(Outcome(evil, evil, 0, GRAPH, 0.1)).data[1].hovertext
    assert "<b>&#x27;&lt;&#x27;</b>" in hovered[1]


@pytest.mark.parametrize(
    ("promised", "real", "words"),
    [
        (-1.0, -0.5, "50 % of it"), (1.0, -1.0, "the other way"), (0.01, 2.0, "next to nothing was promised"),
        (-2.0, 0.04, "next to nothing came of it"), (0.01, -0.02, "as good as nothing, as promised"),
        (-1.0, -1.2, "about as promised"),
    ],
)  # fmt: skip
def test_a_promise_compared_in_words(promised: float, real: float, words: str) -> None:
    assert bench.compared(promised, real) == words


def test_what_is_changed_is_marked_in_the_graph() -> None:
    edges = playing.edge_table(PLAIN)
    assert edges["base_effect"].to_numpy() == pytest.approx(PLAIN.base.scores)
    assert not edges["changed"].any()
    panels = {"base": edges, "tuned": edges}
    marks = {"a0->m0": "x-thin", "m0->logits": "diamond", "a1": "square"}
    marked = wiring.graph(panels, GRAPH, wiring.Scale.of(edges), wiring.Pick(), marked=marks)
    symbols = [trace for trace in marked.data if trace.marker.color == wiring.MARKED]
    assert [list(trace.marker.symbol) for trace in symbols] == [["square", "x-thin", "diamond"]] * 2
    middles, *_ = [t for t in marked.data if t.customdata is not None and len(t.x) == len(edges)]
    place = [list(edges["edge"]).index(name) for name in ("a0->m0", "m0->logits")]
    assert list(symbols[0].x[1:]) == pytest.approx(list(np.array(middles.x)[place]))
    assert list(symbols[0].y[1:]) == pytest.approx(list(np.array(middles.y)[place]))


def test_the_shared_address_holds_the_experiment() -> None:
    experiment = Experiment("grpo", "1+1=", (Change("zero", "a0->m0"), Change("swap", "m1")), 4)
    asked = parse_qsl(bench.asked(load_registry().pair("grpo"), "addition", experiment))
    assert asked == [
        ("pair", "GRPO"),
        ("ask", "1+1="),
        ("token", "5"),
        ("changes", "remove a0->m0"),
        ("changes", "swap m1"),
    ]


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _one_process() -> Iterator[None]:
    """The process that answers, for all tests of this file."""
    yield
    if service.door.cache_info().currsize:
        service.door().close()
        service.door.cache_clear()


def _open(**state: object) -> AppTest:
    return open_app("play", **state)


def _texts(app: AppTest) -> str:
    assert not app.exception
    return "\n".join(str(element.value) for element in (*app.markdown, *app.caption, *app.info, *app.warning))


def _charts(app: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def _answers(app: AppTest) -> list[str]:
    """The tokens that the strip shows, row by row."""
    rows = [trace["text"] for trace in _charts(app)[0]["data"] if trace["type"] == "scatter"]
    return ["".join(rows[n]).replace("<b>", "").replace("</b>", "") for n in range(len(rows))]


def test_both_models_answer_and_the_page_looks_where_they_part(empty: Path) -> None:
    app = _open()
    assert _answers(app) == ["11␣13␣05␣531■", "11␣13␣06␣631■"]
    assert app.subheader[0].value == "What carries token 8: “5” in base, “6” in tuned"
    assert "**base** says “5”" in _texts(app)
    assert "**tuned** says “6”" in _texts(app)
    app.number_input(key="token").set_value(99).run()
    assert app.subheader[0].value == "What carries token 13: “■” in both", "past the end, the last"
    app.text_input(key="ask").set_value("733+918=").run()
    assert app.number_input(key="token").value is None
    assert _answers(app)[0] == _answers(app)[1] == "11␣05␣16␣1651■"


def test_the_examples_show_what_they_say(empty: Path) -> None:
    app = _open()
    right = {}
    for what, problem in playing.EXAMPLES["addition"].items():
        app.button(key=f"example-{problem}").click().run()
        right[what] = [note["text"] for note in _charts(app)[0]["layout"]["annotations"]]
    failing = ["base: wrong ✗", "tuned: right ✓"]
    assert list(right.values()) == [failing, ["base: right ✓", "tuned: right ✓"], failing]


def test_an_edge_that_is_removed_changes_the_answer_and_is_put_back(empty: Path) -> None:
    app = _open(target="a0->m0")
    app.button(key="do-zero").click().run()
    assert app.multiselect(key="changes").value == ["remove a0->m0"]
    base, without, _, _ = _answers(app)
    assert base != without
    assert "the estimate promised" in _texts(app)
    promised, real = (list(app.dataframe[0].value.loc[row, ["base", "tuned"]]) for row in (3, 2))
    assert promised != real
    app.multiselect(key="changes").set_value([]).run()
    assert len(_answers(app)) == 2


def test_a_change_that_the_graph_does_not_have_is_named_and_left_out(empty: Path) -> None:
    app = _open(changes=["remove a9->m9", "swap m1"])
    assert "Left out, as this graph has nothing of that name to change: remove a9-\\>m9." in _texts(app)
    assert len(_answers(app)) == 4


def test_what_cannot_be_asked_is_said_and_the_page_stays(empty: Path) -> None:
    app = _open(ask="   ")
    assert "There is no question." in _texts(app)
    app.text_input(key="ask").set_value("388+243=").run()
    assert _answers(app)[0] == "11␣13␣05␣531■"


def test_a_large_pair_names_small_ones_to_viewers(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_MODE", "hosted")
    monkeypatch.setenv("PROBING_ADMIN_TOKEN", "a" * 20)
    app = _open(pair="mistral")
    assert "Choose a small one as Pair: GRPO, PPO" in _texts(app)
    assert not _charts(app)
    app.selectbox(key="pair").set_value("ppo").run()
    assert len(_answers(app)) == 2


def test_a_playground_that_is_off_says_so(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_PLAYGROUND", "off")
    assert "switched off" in _texts(_open())


def test_a_name_that_stands_for_another_pair_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_OWN_PAIRS", str(tmp_path / "own.toml"))
    service.door().close()  # the process that runs knows of another file
    service.door.cache_clear()
    grpo = load_registry().pair("grpo")
    mine = {
        "title": "Mine", "algorithm": "GRPO", "kind": "RL", "base": grpo.base, "questions": ["addition"],
        "max_new_tokens": grpo.max_new_tokens,
    }  # fmt: skip
    said = []
    for tuned in (grpo.tuned, grpo.base):
        own_pairs.add({**mine, "tuned": tuned})
        said.append(playing.ask(Experiment("mine", "3471+2853=")).tuned.answer.is_right)
        own_pairs.remove("mine")
    assert said == [True, False]
