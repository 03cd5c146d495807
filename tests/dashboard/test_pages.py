"""Every page run by AppTest, without a browser."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import service
from dashboard.words import as_text
from probing.cuts import Cut
from probing.figures.theme import number
from probing.jobs import plan
from probing.jobs.plan import SIDES, Spec
from probing.method import Method
from probing.metrics import Definition, compare
from probing.pairs import load_registry
from probing.rollouts import Criteria
from probing.store.connection import Connection
from tests.conftest import ROOT
from tests.dashboard.apps import by_the_papers_method, compute, edges_shown, open_app, text_of

PAGES = ("compare", "circuits", "distributions", "intensity", "questions", "timeline", "evidence", "methods")


@pytest.mark.parametrize("page", PAGES)
def test_every_page_shows_its_pair(full: Path, page: str) -> None:
    app = open_app(page, pair="ppo", alpha=0.5)
    assert not app.exception
    assert "base → ppo" in app.title[0].value
    assert "first 8 answer tokens (α = 0.5)" in text_of(app)
    if page == "timeline":
        assert "0 of 9 checkpoints" in text_of(app), "timelines are computed at the default cut only"
    else:
        assert bool(app.get("plotly_chart")) == (page not in ("evidence", "methods")), (
            "edges are removed at the default cut"
        )


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_an_empty_state_with_what_to_do_next(empty: Path, page: str) -> None:
    app = open_app(page)
    assert not app.exception
    assert "has not been computed yet" in app.info[0].value
    assert [button.label for button in app.button] == ["Compute it"]
    assert not app.get("plotly_chart")


def test_the_empty_states_button_queues_the_job(empty: Path) -> None:
    app = open_app("compare", cohort="tuned_only")
    app.button[0].click().run()
    assert not app.exception
    (job,) = service.store().queue.jobs().to_dict("records")
    assert '"cohort": "tuned_only"' in job["spec"]
    assert "Being computed" in app.info[0].value


def test_what_an_earlier_version_computed_is_said_to_be_so(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "earlier version" not in text_of(open_app("compare"))
    monkeypatch.setattr(plan, "ANSWERS_VERSION", plan.ANSWERS_VERSION + 1)
    assert "Computed by an earlier version of this program" in text_of(open_app("compare"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_begins_with_its_title(full: Path, page: str) -> None:
    assert next(iter(open_app(page).main.children.values())).type == "title"


@pytest.mark.parametrize("page", PAGES)
def test_a_comparison_that_cannot_be_made_says_why(full: Path, page: str) -> None:
    compute(Spec("grpo", "addition", (Cut(0.3),), Criteria(cohort="both_wrong")))
    app = open_app(page, cohort="both_wrong")
    assert not app.exception
    assert "No question is both wrong" in app.info[0].value


@pytest.mark.parametrize("page", PAGES)
def test_a_failed_job_is_shown_as_a_message_with_a_way_out(empty: Path, page: str) -> None:
    job = service.store().queue.submit(Spec("grpo", "addition").as_json())
    service.store().queue.end(job, "failed", "The device ran out of memory.")
    app = open_app(page)
    assert not app.exception
    assert "The device ran out of memory." in app.error[0].value
    assert app.button[0].label == "Try again"


@pytest.mark.parametrize("page", PAGES)
def test_a_store_that_became_unreadable_is_a_message(full: Path, page: str) -> None:
    service.store()._owner.database.file._connection.execute("DROP TABLE metric_summaries")  # type: ignore[attr-defined]
    app = open_app(page)
    assert not app.exception
    assert "could not be read" in app.error[0].value


def test_the_compare_pages_numbers_are_the_metrics(full: Path) -> None:
    row = by_the_papers_method().loc[("dpo", 0.3)]
    expected = compare(service.store().runs.scores(row["base_run"]), service.store().runs.scores(row["tuned_run"]))
    app = open_app("compare", pair="dpo")
    shown = {metric.label: metric.value for metric in app.metric}
    for label, name in (
        ("Activation intensity (nats)", "activation_intensity"),
        ("Information complexity (nats)", "information_complexity"),
        ("Distribution kurtosis", "distribution_kurtosis"),
        ("Loss (nats)", "loss"),
    ):
        assert shown[label] == f"{number(expected[name].base)} → {number(expected[name].tuned)}"


def _leaderboard(app: AppTest) -> pd.DataFrame:
    (table,) = [d.value for d in app.dataframe if "Pattern" in d.value]
    return table.reset_index(drop=True)


def test_the_leaderboard_has_every_pair_at_every_cut_as_numbers_and_links(full: Path) -> None:
    from urllib.parse import parse_qs, urlsplit

    table = _leaderboard(open_app("compare"))
    local = [pair for pair in load_registry().pairs.values() if pair.is_small]
    runs = by_the_papers_method()[["base_run", "tuned_run"]]
    assert len(table) == len(runs.drop_duplicates())
    assert len(table) < len(runs) == 4 * len(local), "cuts that score the same tokens are one row"
    assert list(table["Cut"][:3]) == ["0.03, 0.1: first token", "0.3: first 5 tokens", "0.5: first 8 tokens"]
    assert pd.api.types.is_numeric_dtype(table["Intensity"]), "sorted as numbers, not as words"
    asked = [parse_qs(urlsplit(link).query) for link in table["Pair"]]
    own = {"pair": ["Other seed"], "questions": ["Addition"], "cohort": ["both correct"], "alpha": ["0.5"]}
    place = asked.index(own)
    compared = service.store().summaries.metrics()
    keys = by_the_papers_method()["comparison_key"]
    row = compared[(compared["comparison_key"] == keys["seed", 0.5]) & (compared["metric"] == "loss")]
    row = row[row["side"] == "tuned"].iloc[0]
    assert table["Loss"][place] == pytest.approx(100 * row["relative"])
    controls = [kind.startswith("control") for kind in table["Kind"]]
    assert controls == sorted(controls), "controls stand last"
    assert any(controls)


def test_a_picked_edge_shows_its_values_and_survives_a_change_of_the_figure(full: Path) -> None:
    app = open_app("circuits", pick="a5->logits")
    assert "**a5->logits**" in text_of(app)
    for change in (
        lambda: app.slider(key="edges").set_value(20).run(),
        lambda: app.button_group(key="kinds").set_value(["q"]).run(),
        lambda: app.toggle(key="sure").set_value(True).run(),
        lambda: app.button_group(key="panels").set_value(["difference"]).run(),
        lambda: app.button_group(key="by").set_value(["share"]).run(),
    ):
        change()
        assert not app.exception
        assert "**a5->logits**" in text_of(app)
        assert app.selectbox(key="pick").value == "a5->logits"


def test_a_picked_node_lists_its_edges(full: Path) -> None:
    app = open_app("circuits", pick="m3")
    inputs, outputs = (d.value for d in app.dataframe)
    assert all(edge.endswith("->m3") for edge in inputs["edge"])
    assert all(edge.startswith("m3->") for edge in outputs["edge"])


def test_filters_leave_fewer_edges_and_can_be_reset(full: Path) -> None:
    app = open_app("circuits")
    assert "66 edges shown" in text_of(app) or "edges shown" in text_of(app)
    before = edges_shown(app)
    app.button_group(key="kinds").set_value(["q", "k"]).run()
    app.button_group(key="changed").set_value(["flipped"]).run()
    assert edges_shown(app) < before
    next(button for button in app.button if button.label == "Reset").click().run()
    assert not app.exception
    assert edges_shown(app) == before


def test_comparisons_under_other_rules_stand_beside_the_papers(full: Path) -> None:
    compute(Spec("grpo", "addition", (Cut(0.3),), Criteria(n=12, seed=7)))
    app = open_app("compare")
    assert "100 questions" in text_of(app)
    app.selectbox(key="variant").select("questions 12, seed 7").run()
    assert not app.exception
    assert "12 questions" in text_of(app)


def test_attention_blocks_as_one_reader_are_shown_as_such(full: Path) -> None:
    compute(Spec("grpo", "addition", (Cut(0.3),), method=Method("blocks")))
    opened = {page: open_app(page, variant="attention blocks as one reader") for page in PAGES}
    for page, app in opened.items():
        assert not app.exception, page
        assert "α = 0.3) · attention blocks as one reader" in text_of(app), page
    (link,) = _leaderboard(opened["compare"])["Pair"]
    assert link.endswith("&variant=attention+blocks+as+one+reader")
    circuits = opened["circuits"]
    before = edges_shown(circuits)
    circuits.button_group(key="kinds-of-blocks").set_value(["qkv"]).run()
    assert not circuits.exception
    assert 0 < edges_shown(circuits) < before


OF_HEADS = "questions 12, heads apart"


def test_a_comparison_of_heads_is_shown_on_every_page(full: Path) -> None:
    compute(Spec("grpo", "addition", (Cut(0.3),), Criteria(n=12), method=Method("heads")))
    opened = {page: open_app(page, variant=OF_HEADS) for page in PAGES}
    for page, app in opened.items():
        assert not app.exception, page
        assert f"α = 0.3) · {OF_HEADS}" in text_of(app), page
    in_force = opened["methods"].dataframe[0].value
    assert "each head apart" in set(in_force["In force"])
    intensity = opened["intensity"]
    (heat,) = (chart for chart in intensity.get("plotly_chart") if '"h3"' in chart.proto.spec)
    assert json.loads(heat.proto.spec)["data"][0]["y"] == ["0", "1", "2", "3", "4", "5"]
    intensity.button_group(key="way").set_value(["out of"]).run()
    assert not intensity.exception

    circuits = opened["circuits"]
    for pick, drawn in (("a3", {"a3.h0", "a3.h3", "a2"}), ("m2->a5.h1<q>", {"a5.h1", "a3"}), (None, {"a3", "a5"})):
        circuits.session_state["pick"] = pick
        circuits.run()
        assert not circuits.exception
        assert f"**{pick}**" in text_of(circuits) or pick is None
        nodes = _nodes_drawn(circuits)
        assert nodes >= drawn
        assert len(nodes) == 14 + 3 * any("." in node for node in nodes)
    inputs = open_app("circuits", variant=OF_HEADS, pick="a3").dataframe[0].value["edge"]
    assert inputs.str.contains("->a3.h").all()


def test_a_page_does_not_wait_for_a_job_of_another_granularity(full: Path) -> None:
    spec = Spec("grpo", "addition", (Cut(0.3),), Criteria(n=12), method=Method("heads"))
    compute(spec)
    queue = service.store().queue
    others = queue.submit(replace(spec, method=Method("blocks"), timeline=True).as_json())
    offered = open_app("timeline", variant=OF_HEADS)
    mine = queue.submit(replace(spec, timeline=True).as_json())
    waiting = open_app("timeline", variant=OF_HEADS)
    for job in (others, mine):
        queue.end(job, "cancelled")
    assert [button.label for button in offered.button] == ["Compute the timeline"]
    assert not waiting.button


def _nodes_drawn(app: AppTest) -> set[str]:
    """The nodes of the circuit's first panel."""
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    nodes = next(trace for trace in figure["data"] if trace.get("mode") == "markers+text")
    return {name for (name,) in nodes["customdata"]}


@pytest.mark.parametrize("name", ["a5.h1->logits", "a9", "nonsense->"])
def test_a_name_in_a_link_that_is_none_of_this_graphs_is_said_to_be_so(full: Path, name: str) -> None:
    app = open_app("circuits", {"pick": name})
    assert not app.exception
    assert f"Nothing in this graph is called “{as_text(name)}”" in app.warning[0].value
    app.selectbox(key="pick").select("a5->logits").run()
    assert not app.exception
    assert not app.warning
    assert "**a5->logits**" in text_of(app)


def test_the_methods_page_says_with_what_the_numbers_were_made(full: Path) -> None:
    app = open_app("methods", alpha=0.5)
    parameters, made = (d.value for d in app.dataframe)
    in_force = dict(zip(parameters["Parameter"], parameters["In force"], strict=True))
    assert in_force["cut"] == "α = 0.5, the first 8 tokens of an answer; shorter ones stay whole"
    assert in_force["questions drawn"].startswith("100 of ")
    by_name = made.set_index("")
    assert by_name.loc["device", "base"] == "cpu"
    assert by_name.loc["identity", "base"] != by_name.loc["identity", "tuned"]
    assert len(app.expander) == 8


def test_more_bins_change_the_complexity_and_not_the_kurtosis(full: Path) -> None:
    app = open_app("distributions")
    before = {m.label: m.value for m in app.metric}
    app.slider(key="bins").set_value(400).run()
    after = {m.label: m.value for m in app.metric}
    assert before["Information complexity (nats)"] != after["Information complexity (nats)"]
    assert before["Distribution kurtosis"] == after["Distribution kurtosis"]


def test_the_papers_bins_can_be_chosen_and_their_interval_is_named_one_for_them(full: Path) -> None:
    for part in ("Size", "Bins"):
        app = open_app("distributions", part=part)
        assert "100 times the mean |score|" in text_of(app)
        assert "these very bins" not in text_of(app)
        app = open_app("distributions", part=part, range="largest")
        assert not app.exception
        assert "the entropy over all such questions in these very bins" in text_of(app)
    row = by_the_papers_method().loc[("grpo", 0.3)]
    both = (service.store().runs.scores(row["base_run"]), service.store().runs.scores(row["tuned_run"]))
    c = compare(*both, Definition(histogram_max="observed"))["information_complexity"]
    app = open_app("distributions", range="largest")
    (shown,) = [m.value for m in app.metric if m.label == "Information complexity (nats)"]
    assert shown == f"{number(c.base)} → {number(c.tuned)}"


@pytest.mark.parametrize(
    ("page", "key", "parts"),
    [
        ("distributions", "part", ["Size", "Concentration", "Bins", "By question", "Diversity"]),
        ("intensity", "section", ["Where", "Top movers", "Against the cut", "Against the loss"]),
    ],
)
def test_every_part_of_a_page_shows_something(full: Path, page: str, key: str, parts: list[str]) -> None:
    for part in parts:
        app = open_app(page, **{key: part})
        assert not app.exception, part
        assert app.get("plotly_chart") or app.dataframe, part


def test_every_metric_has_a_histogram_and_a_curve_over_the_cuts(full: Path) -> None:
    app = open_app("distributions", part="By question")
    for label in app.selectbox(key="metric").options:
        app.selectbox(key="metric").select(label).run()
        assert not app.exception, label
    app = open_app("intensity", section="Against the cut")
    for label in app.selectbox(key="cut_metric").options:
        app.selectbox(key="cut_metric").select(label).run()
        assert not app.exception, label


def test_few_questions_are_said_to_be_few(full: Path) -> None:
    compute(Spec("grpo", "addition", (Cut(0.3),), Criteria(n=1, seed=3)))
    for page in PAGES:
        app = open_app(page, variant="questions 1, seed 3")
        assert not app.exception, page
        assert "Only 1 questions: intervals are rough" in text_of(app), page
    assert "none: too few questions" in text_of(open_app("compare", variant="questions 1, seed 3"))


@pytest.mark.parametrize("page", PAGES)
def test_no_rerun_queries_what_it_already_has(full: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(page)
    queries: list[str] = []
    for way in ("rows", "frame", "batches"):
        real = getattr(Connection, way)

        def counted(self: Connection, sql: str, *parameters: object, real: Callable = real) -> object:
            queries.append(sql)
            return real(self, sql, *parameters)

        monkeypatch.setattr(Connection, way, counted)
    app.run()
    assert not app.exception
    assert queries == []
    app.selectbox(key="pair").select("PPO").run()
    assert queries, "another pair is another question"


def test_an_unknown_pair_in_the_url_is_named(full: Path) -> None:
    app = open_app(link={"pair": "Nonsense"})
    assert not app.exception
    assert "The link asks for the pair “Nonsense”, which is not known here" in app.warning[0].value
    app.selectbox(key="pair").select("PPO").run()
    assert not [w for w in app.warning if "The link asks" in w.value]


def test_the_papers_values_stand_beside_ours_where_the_pair_is_the_same(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute(Spec("grpo", "addition", (Cut(0.3),), method=Method("blocks")))
    # The shipped comparison under the name of one of the paper's pairs: only the names are borrowed.
    text = (ROOT / "data" / "pairs.toml").read_text()
    registry = ROOT / "data" / "pairs.toml"
    borrowed = tmp_path / "pairs.toml"
    text = text.replace('title = "Addition"\nfile = "questions', f'title = "MATH"\nfile = "{registry.parent}/questions')
    start = text.index("[pairs.grpo]")
    entry = text[start:].split("\n\n")[0]
    named = entry.replace('"zoo/base"', '"peiyi9979/mistral-7b-sft"').replace(
        '"zoo/grpo"', '"peiyi9979/math-shepherd-mistral-7b-rl"'
    )
    borrowed.write_text(text.replace(entry, named))
    monkeypatch.setenv("PROBING_PAIRS", str(borrowed))
    app = open_app("compare", pair="grpo")
    assert not app.exception
    assert "published: 4.49×10⁻⁴ → 4.92×10⁻⁴" in text_of(app)
    row = (
        service.store()
        .comparisons.table()
        .set_index(["pair", "alpha"])
        .loc[("grpo", 0.3)]
        .sort_values("created")
        .iloc[0]
    )
    ours = compare(
        *(service.store().runs.scores(row[f"{side}_run"]) for side in SIDES), Definition(histogram_max="observed")
    )["information_complexity"]
    assert f"such bins ours: {number(ours.base)} → {number(ours.tuned)}" in text_of(app), (
        "the paper's bins, and no others"
    )
    table = _leaderboard(app)
    of_the_pair = table["Pair"].str.contains("pair=GRPO&")
    (paper,) = table[(table["Pattern"] == "published") & of_the_pair].to_dict("records")
    assert paper["Cut"] == "0.3"
    assert paper["Intensity"] == pytest.approx(100 * (4.92 / 4.49 - 1))
    assert "published" not in text_of(open_app("compare", pair="ppo"))
    assert "published" not in text_of(open_app("compare", variant="attention blocks as one reader")), (
        "the paper has no such"
    )


def test_a_circuit_file_limits_the_page_to_its_edges(full: Path) -> None:
    from probing.edge_tables import edge_table
    from probing.exchange import CircuitFile, as_eap_json
    from probing.graph import graph_of

    store = service.store()
    row = store.comparisons.table().iloc[0]
    table = edge_table(graph_of(6), store.summaries.edges(row["comparison_key"]))
    mine = CircuitFile.shown(graph_of(6), table, {"m0->m1", "a5->logits"})
    app = open_app("circuits")
    app.file_uploader(key="circuit-file").set_value(("mine.json", as_eap_json(mine).encode(), "application/json")).run()
    assert not app.exception
    assert "Only the 2 edges of the circuit in mine.json" in app.info[0].value
    assert edges_shown(app) == 2
    app.file_uploader(key="circuit-file").set_value(("bad.json", b"{}", "application/json")).run()
    assert "not a circuit in EAP-IG's JSON format" in app.error[0].value
