"""Which edges are shown, where they are drawn, and what can be taken away: pure functions, without an app."""

import io
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from dashboard import exports, transcript
from dashboard.edge_filter import MOST, EdgeFilter, together
from dashboard.names import suggested
from probing.edge_tables import EDGE_VALUES, by_layer_and_kind, edge_table, edge_values, into_heads, out_of_heads
from probing.evidence import Audit
from probing.figures import diversity, evidence, histograms, layers, matrix, spread, strips, timeline, tokens, wiring
from probing.figures.cells import cells
from probing.figures.panels import PANELS
from probing.figures.theme import BASE, PICKED, faded, ink
from probing.figures.wiring import Pick, Scale
from probing.graph import Heads, ResidualGraph, graph_of
from probing.metrics import Definition, histogram_top
from probing.scores import Scores

LAYERS = 5
GRAPH = graph_of(LAYERS)


@pytest.fixture(scope="module")
def pair() -> tuple[Scores, Scores]:
    rng = np.random.default_rng(3)
    shape = rng.lognormal(-3, 1.2, (1, *GRAPH.mask.shape))
    made = []
    for scale in (1.0, 1.3):
        values = (rng.standard_t(4, (25, *GRAPH.mask.shape)) + 0.5) * shape * GRAPH.mask * scale
        ids = tuple(f"q{i}" for i in range(25))
        made.append(Scores(GRAPH, ids, GRAPH.to_edges(values.astype(np.float32)), rng.random(25).astype(np.float32)))
    return made[0], made[1]


@pytest.fixture(scope="module")
def table(pair: tuple[Scores, Scores]) -> pd.DataFrame:
    return edge_table(GRAPH, edge_values(*pair, Definition(resamples=200)))


def _panels(table: pd.DataFrame, chosen: EdgeFilter, names: Sequence[str] = tuple(PANELS)) -> dict[str, pd.DataFrame]:
    return {name: chosen.apply(table, name) for name in names}


def _matrix(table: pd.DataFrame, graph: ResidualGraph, names: Sequence[str], pick: Pick) -> go.Figure:
    unfolded = pick.unfolded(graph)
    return matrix.panels(cells(table, graph, unfolded), graph, unfolded, names, pick)


# -- which edges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("panel", list(PANELS))
def test_a_panel_shows_its_strongest_edges_first(table: pd.DataFrame, panel: str) -> None:
    shown = EdgeFilter(count=12).apply(table, panel)
    size = table[PANELS[panel]].abs()
    assert list(shown[PANELS[panel]].abs()) == sorted(size, reverse=True)[:12]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_a_share_is_covered_by_as_few_edges_as_it_takes(table: pd.DataFrame, share: float) -> None:
    shown = EdgeFilter(count=None, share=share).apply(table, "base")["base_strength"]
    total = table["base_strength"].sum()
    assert shown.sum() >= share * total > shown.iloc[:-1].sum()


def test_each_rule_leaves_out_what_it_says(table: pd.DataFrame) -> None:
    everything = {"count": MOST}
    of_kind = EdgeFilter(**everything, kinds=("q", "logits")).apply(table, "tuned")
    assert set(of_kind["kind"]) == {"q", "logits"}
    in_layers = EdgeFilter(**everything, layers=(1, 2)).apply(table, "tuned")
    assert set(in_layers["layer"]) == {1, 2}
    helping = EdgeFilter(**everything, sign="helps")
    assert (helping.apply(table, "base")["base_effect"] > 0).all()
    assert (helping.apply(table, "difference")["tuned_effect"] > 0).all()
    assert (EdgeFilter(**everything, sign="hurts").apply(table, "tuned")["tuned_effect"] < 0).all()
    assert EdgeFilter(**everything, sure=True).apply(table, "difference")["changed"].all()
    gained = EdgeFilter(count=20, changed=("gained",)).apply(table, "tuned")
    assert ((gained["tuned_rank"] <= 20) & (gained["base_rank"] > 20)).all()
    assert len(gained)
    only = _panels(table, EdgeFilter(**everything, only=frozenset({"m0->m1", "a1->logits"})))
    assert list(together(table, only)["edge"]) == [e for e in GRAPH.edges if e in {"m0->m1", "a1->logits"}]


def test_no_panel_shows_more_than_a_browser_can_take() -> None:
    graph = graph_of(14)
    values = pd.DataFrame({name: np.arange(len(graph.edges), dtype=float) + 1 for name in EDGE_VALUES})
    large = edge_table(graph, values)
    assert len(EdgeFilter(count=None, share=1.0).apply(large, "base")) == MOST


# -- where they are drawn ----------------------------------------------------------------------------------------------


def _nodes(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.mode == "markers+text" and trace.text[0] not in ("q", "k", "v")]


def test_nodes_stand_in_the_same_places_in_every_panel_and_under_every_filter(table: pd.DataFrame) -> None:
    few = EdgeFilter(count=10, kinds=("q",))
    views = [
        wiring.graph(_panels(table, EdgeFilter(count=40)), GRAPH, Scale.of(table), Pick()),
        wiring.graph(_panels(table, few, ["tuned"]), GRAPH, Scale.of(table), Pick("m2", trace=True)),
    ]
    places = [(list(t.text), list(t.x), list(t.y)) for view in views for t in _nodes(view)]
    assert len(places) == 4
    assert all(place == places[0] for place in places)
    heights = [view.layout.height - view.layout.margin.b for view in views]
    assert heights[0] == heights[1], "without the keys, which are not equally long"
    assert views[0].layout.yaxis.range == views[1].layout.yaxis.range


@pytest.mark.parametrize("layers", [1, 5, 32])
@pytest.mark.parametrize(("heads", "pick"), [(None, ""), (Heads(32, 8, bias=True), "a0"), (Heads(3, 3), "a0.h1")])
def test_no_two_nodes_overlap(layers: int, heads: Heads | None, pick: str) -> None:
    graph = graph_of(layers, False, "heads", (), (heads,) * layers) if heads else graph_of(layers)
    figure = wiring.graph({"base": pd.DataFrame()}, graph, Scale(1.0, 1.0), Pick(pick or None))
    (nodes,) = _nodes(figure)
    low, high = figure.layout.yaxis.range
    pixels = (figure.layout.height - figure.layout.margin.t - figure.layout.margin.b) / (high - low)
    lane = 100  # pixels between the lanes of three panels on a 1440 px screen
    centres = np.column_stack([np.array(nodes.x) * lane, np.array(nodes.y) * pixels])
    sizes = np.array(nodes.marker.size)
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + 1e9 * np.eye(len(centres))
    assert (distance >= (sizes[:, None] + sizes[None]) / 2 - 1).all()
    assert (np.array(nodes.y) * pixels - sizes / 2 >= low * pixels).all()
    assert (np.array(nodes.y) * pixels + sizes / 2 <= high * pixels).all()
    left, right = figure.layout.xaxis.range
    assert (centres[:, 0] - sizes / 2 >= left * lane).all()
    assert (centres[:, 0] + sizes / 2 <= right * lane).all()


def test_every_shown_edge_can_be_clicked_and_says_what_it_is(table: pd.DataFrame) -> None:
    edges = EdgeFilter(count=15).apply(table, "tuned")
    figure = wiring.graph({"tuned": edges}, GRAPH, Scale.of(table), Pick())
    (markers,) = [t for t in figure.data if t.mode == "markers" and t.customdata is not None]
    assert [c[0] for c in markers.customdata] == list(edges["edge"])
    assert all("difference" in text and "rank" in text for text in markers.hovertext)


def _drawn(figure: go.Figure, edge: str) -> list[go.Scatter]:
    """The lines of one edge where nothing else is drawn as it is, the lowest first."""
    (marks,) = [t for t in figure.data if t.mode == "markers" and t.customdata is not None]
    at = [c[0] for c in marks.customdata].index(edge)
    middle = (marks.x[at], marks.y[at])
    lines = [t for t in figure.data if t.mode == "lines" and len(t.x) > 1]
    return [t for t in lines if np.isclose(np.column_stack([t.x, t.y]), middle, atol=2e-3).all(1).any()]


def _looks(line: go.Scatter) -> tuple:
    return line.line.color, line.line.width, line.line.dash


@pytest.mark.parametrize("panel", list(PANELS))
@pytest.mark.parametrize("place", [0, 3, 29])
def test_a_picked_edge_looks_as_before_with_a_halo_behind_it(table: pd.DataFrame, panel: str, place: int) -> None:
    edges = EdgeFilter(count=30).apply(table, panel)
    edge = edges["edge"].iloc[place]
    (before,) = _drawn(wiring.graph({panel: edges}, GRAPH, Scale.of(table), Pick()), edge)
    halo, picked = _drawn(wiring.graph({panel: edges}, GRAPH, Scale.of(table), Pick(edge)), edge)
    assert _looks(picked) == _looks(before)
    assert halo.line.color == faded(PICKED, 0.4)
    assert halo.line.width > picked.line.width + 4


def test_base_and_tuned_are_told_apart_once_picked(table: pd.DataFrame) -> None:
    edge = table.loc[(np.sign(table["base_effect"]) != np.sign(table["tuned_effect"])), "edge"].iloc[0]
    panels = dict.fromkeys(("base", "tuned"), table[table["edge"] == edge])
    base, tuned = (_drawn(wiring.graph({s: panels[s]}, GRAPH, Scale.of(table), Pick(edge)), edge) for s in panels)
    assert _looks(base[1])[0] != _looks(tuned[1])[0]
    assert {_looks(base[1])[2], _looks(tuned[1])[2]} == {"dot", "solid"}


def test_edges_into_queries_keys_and_values_end_apart_at_ports_that_say_which(table: pd.DataFrame) -> None:
    edges = table[table["node"] == "a2"]
    figure = wiring.graph({"base": edges}, GRAPH, Scale.of(table), Pick())
    (ports,) = [t for t in figure.data if t.text and t.text[0] == "q"]
    shown = {text.split("<br>")[0]: (x, y) for text, x, y in zip(ports.hovertext, ports.x, ports.y, strict=True)}
    (nodes,) = _nodes(figure)
    node = (nodes.x[nodes.text.index("a2")], nodes.y[nodes.text.index("a2")])
    for kind in "qkv":
        port = shown[f"<b>a2&lt;{kind}&gt;</b>"]
        assert port[1] < node[1]
        for edge in edges.loc[edges["kind"] == kind, "edge"]:
            (line,) = _drawn(wiring.graph({"base": edges[edges["edge"] == edge]}, GRAPH, Scale(1, 1), Pick()), edge)
            assert (line.x[-2], line.y[-2]) == pytest.approx(port, abs=1e-3)
    assert len(set(shown.values())) == 3 * LAYERS
    assert {c[0] for c in ports.customdata} == {f"a{layer}" for layer in range(LAYERS)}, "a click picks the block"
    as_one = graph_of(LAYERS, False, "blocks")
    assert not [t for t in wiring.graph({"base": pd.DataFrame()}, as_one, Scale(1, 1), Pick()).data if t.text == ("q",)]


def _key(figure: go.Figure, panel: int) -> dict[str, go.Scatter]:
    entries = [t for t in figure.data if t.showlegend and t.legend == f"legend{panel + 2}"]
    return {entry.name: entry for entry in entries}


def test_the_key_says_what_widths_and_colours_mean(table: pd.DataFrame) -> None:
    table = table.assign(base_strength=table["base_strength"] / table["base_strength"].max())
    table.loc[table.index[5:], "q"] = 0.5
    table["changed"] = table["q"] <= 0.05
    figure = wiring.graph(_panels(table, EdgeFilter(count=MOST)), GRAPH, Scale(1.0, 0.5), Pick())
    base, difference = _key(figure, 0), _key(figure, 2)
    for low, high, name in ((0.8, 1.0, "0.800 to 1.00"), (0.4, 0.6, "0.400 to 0.600"), (0.0, 0.2, "0 to 0.200")):
        as_wide = table.iloc[[0]].assign(base_strength=(low + high) / 2)
        (line,) = _drawn(wiring.graph({"base": as_wide}, GRAPH, Scale(1.0, 1.0), Pick()), as_wide["edge"].iloc[0])
        assert (base[name].line.width, base[name].line.color) == (line.line.width, BASE)
    assert base["removing it lowers the loss"].line.dash == "dot"
    assert difference["no change found (q above 0.05)"].line.dash == "dot"
    assert "0.400 to 0.500" in difference
    titles = [figure.layout[f"legend{n}"].title.text.replace("<br>", " ") for n in (2, 3, 4)]
    assert titles[0] == titles[1] == "Width: mean |score|"
    assert titles[2] == "Width: difference of mean |score|, on a scale of its own"
    alone = wiring.graph({"difference": table}, GRAPH, Scale(1, 1, "mean |x|"), Pick()).layout.legend2.title.text
    assert alone == "Width: difference of mean |x|"


def test_what_is_picked_stands_out(table: pd.DataFrame) -> None:
    edges = EdgeFilter(count=30).apply(table, "tuned")
    edge = edges["edge"].iloc[3]
    figure = wiring.graph({"tuned": edges}, GRAPH, Scale.of(table), Pick(edge))
    (nodes,) = _nodes(figure)
    ringed = {name for name, colour in zip(nodes.text, nodes.marker.color, strict=True) if colour == PICKED}
    assert ringed == Pick(edge).nodes
    heat = _matrix(table, GRAPH, ["tuned"], Pick(edge))
    (box,) = heat.layout.shapes
    writer, reader = edge.split("->")
    assert GRAPH.readers[round((box.x0 + box.x1) / 2)] == reader
    assert GRAPH.writers[round((box.y0 + box.y1) / 2)] == writer


def test_a_picked_node_is_outlined_where_it_reads_and_writes(table: pd.DataFrame) -> None:
    heat = _matrix(table, GRAPH, ["base"], Pick("a2"))
    cells = set()
    for box in heat.layout.shapes:
        for x in range(round(box.x0 + 0.5), round(box.x1 + 0.5)):
            for y in range(round(box.y0 + 0.5), round(box.y1 + 0.5)):
                cells.add(f"{GRAPH.writers[y]}->{GRAPH.readers[x]}")
    assert cells == set(table.loc[(table["writer"] == "a2") | (table["node"] == "a2"), "edge"])


# -- heads -------------------------------------------------------------------------------------------------------------

SMALL = graph_of(3, False, "heads", (), (Heads(4, 2, bias=True), None, Heads(4, 2, bias=True)))
LARGE = graph_of(32, False, "heads", (), (Heads(32, 8),) * 32)


def _table_of(graph: ResidualGraph) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return edge_table(graph, pd.DataFrame({name: rng.lognormal(size=graph.size) for name in EDGE_VALUES}))


@pytest.fixture(scope="module")
def of_heads() -> pd.DataFrame:
    return _table_of(SMALL)


@pytest.fixture(scope="module")
def of_many_heads() -> pd.DataFrame:
    return _table_of(LARGE)


@pytest.mark.parametrize(
    ("pick", "writer", "reader"),
    [
        (None, "a0", "a2"),
        ("m1", "a0", "a2"),
        ("a1", "a0", "a2"),
        ("a0", "a0.h3", "a2"),
        ("a2.h0", "a0", "a2.g1"),
        ("a0.h3->a2.g1<v>", "a0.h3", "a2.g1"),
    ],
)
def test_edges_end_at_the_block_or_where_that_is_picked_at_its_heads(
    of_heads: pd.DataFrame, pick: str | None, writer: str, reader: str
) -> None:
    (edge,) = np.flatnonzero(of_heads["edge"] == "a0.h3->a2.g1<v>")
    figure = wiring.graph({"base": of_heads.iloc[[edge]]}, SMALL, Scale.of(of_heads), Pick(pick))
    (nodes,) = _nodes(figure)
    at = {name[0]: (x, y) for x, y, name in zip(nodes.x, nodes.y, nodes.customdata, strict=True)}
    (drawn,) = _drawn(figure, "a0.h3->a2.g1<v>")[-1:]
    assert (drawn.x[0], drawn.y[0]) == pytest.approx(at[writer], abs=1e-3)
    assert drawn.x[-2] == pytest.approx(at[reader][0], abs=0.12), "at the node, or its port for values"
    assert -1e-3 < at[reader][1] - drawn.y[-2] < 0.6
    assert ("a0" in at) == (writer == "a0"), "an unfolded block has no node of its own"
    (marks,) = [trace for trace in figure.data if trace.mode == "markers"]
    assert marks.hovertext[0].startswith("<b>a0.h3→a2.g1<v></b>")


def test_an_unfolded_block_shows_heads_bias_and_groups_and_says_whose_the_groups_are() -> None:
    (nodes,) = _nodes(wiring.graph({"base": pd.DataFrame()}, SMALL, Scale(1.0, 1.0), Pick("a2")))
    names = [name[0] for name in nodes.customdata]
    shown = dict(zip(names, zip(nodes.text, nodes.y, nodes.hovertext, strict=True), strict=True))
    assert {name for name in shown if name.startswith("a2.")} == {
        "a2.h0", "a2.h1", "a2.h2", "a2.h3", "a2.bias", "a2.g0", "a2.g1",
    }  # fmt: skip
    assert shown["a2.h3"][0] == "h3"
    assert shown["a2.g1"][1] < shown["a2.h0"][1] < shown["m2"][1], "groups below the heads that they feed"
    assert shown["a2.g1"][2].endswith("keys and values of a2.h2 to a2.h3")
    assert shown["a0"][2].endswith("7 parts, folded")
    assert shown["a1"][2] == "a1", "a block whose heads cannot be told apart is a node"


def test_edges_of_several_heads_of_a_folded_block_lie_apart(of_heads: pd.DataFrame) -> None:
    edges = of_heads[of_heads["writer"].isin([f"a0.h{i}" for i in range(4)]) & of_heads["kind"].isin(["mlp", "v"])]
    figure = wiring.graph({"base": edges}, SMALL, Scale.of(of_heads), Pick())
    (marks,) = [trace for trace in figure.data if trace.mode == "markers"]
    assert len({(round(x, 3), round(y, 3)) for x, y in zip(marks.x, marks.y, strict=True)}) == len(edges)


def test_a_picked_block_stands_for_the_edges_of_all_its_heads(of_heads: pd.DataFrame) -> None:
    mine = {edge for edge in SMALL.edges if edge.startswith("a2.") or "->a2." in edge}
    assert Pick("a2").edges(of_heads, SMALL) == mine
    assert Pick("a2.h1").edges(of_heads, SMALL) == {e for e in mine if "a2.h1" in e}


def test_a_small_matrix_of_heads_has_a_cell_for_each_edge(of_heads: pd.DataFrame) -> None:
    figure = _matrix(of_heads, SMALL, ["base"], Pick())
    assert np.isfinite(np.array(figure.data[0].z, float)).sum() == SMALL.size


@pytest.mark.parametrize(("pick", "rows", "columns"), [(None, 65, 129), ("a5", 96, 174)])
def test_a_large_matrix_folds_all_blocks_but_the_picked_one(
    of_many_heads: pd.DataFrame, pick: str | None, rows: int, columns: int
) -> None:
    figure = _matrix(of_many_heads, LARGE, ["base", "difference"], Pick(pick))
    base, difference = (trace for trace in figure.data if trace.type == "heatmap")
    assert np.shape(base.z) == (rows, columns)
    assert np.nansum(base.customdata) == pytest.approx(of_many_heads["base_strength"].sum())
    assert np.nansum(difference.customdata) == pytest.approx(of_many_heads["difference"].sum())
    assert len(figure.to_json()) < 3e6
    cell = of_many_heads[of_many_heads["edge"].str.match(r"a3\.h\d+->a9\.g\d+<k>")]
    row, column = list(base.y).index("a3"), list(base.x).index("a9<k>")
    assert base.customdata[row][column] == pytest.approx(cell["base_strength"].sum())


def test_a_click_on_a_folded_cell_picks_its_strongest_edge(of_many_heads: pd.DataFrame) -> None:
    figure = _matrix(of_many_heads, LARGE, ["base"], Pick())
    marks = figure.data[-1]
    blocks = of_many_heads["edge"].str.replace(r"\.[hg]\d+", "", regex=True)
    strength = of_many_heads[["base_strength", "tuned_strength"]].max(axis=1)
    for place in (0, 150, 299):
        cell = strength[blocks == f"{marks.y[place]}->{marks.x[place]}"]
        assert marks.customdata[place][0] == of_many_heads["edge"][cell.idxmax()]
        assert f", {len(cell)} edges<br>" in marks.hovertext[place]


def test_every_edge_of_a_large_graph_is_found_by_its_name_without_a_list_of_all(of_many_heads: pd.DataFrame) -> None:
    graph = ResidualGraph(32, False, "heads", (), (Heads(32, 8),) * 32)
    started = time.perf_counter()
    assert graph.knows("m30->a31.g7<v>")
    assert not graph.knows("m31->a31.g7<v>")
    assert len(suggested(graph, of_many_heads, None)) == 200
    of_head = suggested(graph, of_many_heads, "a7.h3")[:50]
    assert sum("a7.h3<" in edge for edge in of_head) == sum(edge.startswith("a7.h3->") for edge in of_head) == 25
    assert time.perf_counter() - started < 2
    assert "edges" not in vars(graph)


def test_the_matrix_of_layers_and_heads_has_each_head_in_its_cell() -> None:
    rng = np.random.default_rng(2)
    both = [
        Scores(SMALL, tuple("abcdef"), scale * rng.normal(size=(6, SMALL.size)).astype(np.float32), np.ones(6, "f4"))
        for scale in (1, 2)
    ]
    size = [np.abs(scores.edges).astype(float) for scores in both]
    for function, mine, columns in (
        (into_heads, lambda e: "->a2.g1" in e, ["h0", "h1", "h2", "h3", "g0", "g1"]),
        (out_of_heads, lambda e: e.startswith("a2.bias"), ["h0", "h1", "h2", "h3", "bias"]),
    ):
        heat = layers.by_head(function(*both, Definition(resamples=50)), SMALL).data[0]
        assert list(heat.x) == columns
        members = [mine(edge) for edge in SMALL.edges]
        assert heat.z[2][-1] == pytest.approx(size[1][:, members].mean() - size[0][:, members].mean())
        assert np.isnan(heat.z[1]).all(), "a layer whose heads cannot be told apart"


# -- curves and maps ---------------------------------------------------------------------------------------------------


def _named(figure: go.Figure, name: str) -> go.Scatter:
    return next(trace for trace in figure.data if trace.name == name)


def test_histograms_count_every_cell_once(pair: tuple[Scores, Scores]) -> None:
    figure = histograms.of_sizes(*pair, Definition(bins=30), log_counts=False, log_size=False)
    for name in ("base", "tuned"):
        trace = _named(figure, name)
        assert sum(trace.y[::2]) == 25 * GRAPH.mask.size
        assert trace.x[-1] == pytest.approx(histogram_top(*pair, Definition()))


def test_the_cumulative_curve_is_the_share_below(pair: tuple[Scores, Scores]) -> None:
    trace = _named(spread.cumulative(*pair), "tuned")
    size = np.abs(pair[1].edges)
    for x, y in list(zip(trace.x, trace.y, strict=True))[::40]:
        assert (size <= x * (1 + 1e-9)).mean() == pytest.approx(y, abs=2e-3)


def test_the_lorenz_curve_holds_the_gini_coefficient(table: pd.DataFrame) -> None:
    trace = _named(spread.lorenz(table), "base")
    strength = table["base_strength"].to_numpy()
    literal = np.abs(strength[:, None] - strength[None]).sum() / (2 * len(strength) * strength.sum())
    assert 2 * np.trapezoid(trace.y, trace.x) - 1 == pytest.approx(literal, abs=1e-6)


def test_the_correlation_maps_share_order_and_scale() -> None:
    rng = np.random.default_rng(0)
    base, tuned = (np.corrcoef(rng.normal(size=(6, 30))) for _ in range(2))
    one, other = diversity.maps(base, tuned, list("abcdef")).data
    assert list(one.x) == list(other.x) == list(one.y)
    assert (one.zmin, one.zmax) == (other.zmin, other.zmax)
    i, j = ("abcdef".index(one.x[k]) for k in (1, 4))
    assert one.z[1][4] == pytest.approx(base[i, j], abs=1e-4)


def test_moving_edges_are_those_that_are_not_always_among_the_strongest() -> None:
    graph = graph_of(1)
    tables = {}
    for step, order in {0: [0, 1, 2, 3], 10: [0, 2, 1, 3], 20: [0, 2, 3, 1]}.items():
        values = pd.DataFrame(0.0, index=range(len(graph.edges)), columns=list(EDGE_VALUES))
        values.loc[order, "tuned_strength"] = [4.0, 3.0, 2.0, 1.0]
        tables[step] = edge_table(graph, values)
    moving = timeline.moving(tables, 2)
    assert list(moving.index) == [graph.edges[1], graph.edges[2]], "what goes stands above what comes"
    assert moving.loc[graph.edges[1]].tolist() == [2, 3, 4]
    shown = np.array(timeline.membership(moving, 2).data[0].z, dtype=float)
    np.testing.assert_array_equal(np.isnan(shown), [[False, True, True], [True, False, False]])


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_tokens_that_look_like_markup_are_shown_as_text() -> None:
    figure = tokens.contributions([["<s>", "<b>", " "]] * 2, [np.ones(3)] * 2, 2)
    assert list(figure.layout.xaxis.ticktext) == ["&lt;s&gt;", "&lt;b&gt;", "␣"]
    shown = transcript.marked(["<script>", "x", "y"], 1, "base")
    assert "<script>" not in shown
    assert shown.index("scored-base") < shown.index("cut") < shown.index("beyond")


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("m1->a2<k>", ["m1->a2<k>"]),
        ("m1", [e for e in GRAPH.edges if e.startswith("m1->")]),
        ("logits", [e for e in GRAPH.edges if e.endswith("->logits")]),
        ("input", [e for e in GRAPH.edges if e.startswith("input->")]),
    ],
)
def test_a_contribution_sums_the_right_edges(name: str, edges: Sequence[str]) -> None:
    scores = np.random.default_rng(0).normal(size=(4, len(GRAPH.edges)))
    expected = sum(scores[:, GRAPH.edges.index(edge)] for edge in edges)
    np.testing.assert_allclose(transcript.contribution(GRAPH, scores, name), expected)


# -- exports -----------------------------------------------------------------------------------------------------------


def test_numbers_of_a_figure_are_those_it_draws(table: pd.DataFrame, pair: tuple[Scores, Scores]) -> None:
    lorenz = exports.numbers_of(spread.lorenz(table))
    assert set(lorenz["trace"]) == {"all equal", "base", "tuned"}
    assert (lorenz[lorenz["trace"] == "base"]["y"].diff().dropna() >= 0).all()
    heat = exports.numbers_of(diversity.maps(np.eye(3), np.eye(3), ["a", "b", "c"]))
    assert len(heat) == 18
    assert heat.loc[(heat["x"] == "a") & (heat["y"] == "a"), "z"].tolist() == [1.0, 1.0]


def test_a_figure_as_html_needs_no_network(table: pd.DataFrame) -> None:
    page = exports.as_html(spread.lorenz(table))
    assert "share of all strength" in page
    assert "cdn.plot.ly" not in page.split("<body>")[0]
    assert len(page) > 3_000_000, "the library is inside"


def test_a_figure_from_a_dark_page_is_dark_on_white_paper(table: pd.DataFrame) -> None:
    figure = ink(spread.lorenz(table), dark=True)
    pale = figure.layout.xaxis.tickfont.color
    assert pale not in exports.as_html(figure)
    assert figure.layout.xaxis.tickfont.color == pale, "the page's own figure stays as it is"


@pytest.mark.parametrize("part", ["breakdown", "matrix"])
def test_numbers_of_mixed_axes_can_be_written(pair: tuple[Scores, Scores], table: pd.DataFrame, part: str) -> None:
    if part == "breakdown":
        figure = layers.by_kind(by_layer_and_kind(*pair, Definition(resamples=50)), GRAPH)
    else:
        figure = _matrix(table, GRAPH, ["base"], Pick())
    numbers = exports.numbers_of(figure)
    assert len(numbers) == (4 * LAYERS + 1 if part == "breakdown" else len(GRAPH.edges))
    assert len(pd.read_parquet(io.BytesIO(exports.as_parquet(numbers)))) == len(numbers)


def test_a_table_as_parquet_comes_back(table: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(exports.as_parquet(table))), table)


def test_names_from_question_files_are_no_markup_in_figures_and_plain_in_what_is_taken_away() -> None:
    names = ["<a href='x'>q</a>", "q2"]
    figure = strips.pairs(np.ones(2), np.zeros(2), names, "nats", 200)
    assert "<a" not in figure.to_json()
    assert set(exports.numbers_of(figure)["label"].dropna()) == set(names)
    maps = diversity.maps(np.eye(2), np.eye(2), names)
    assert "<a" not in maps.to_json()


def test_effects_of_every_size_and_both_signs_are_apart_on_their_axis() -> None:
    edges = pd.DataFrame({"edge": [f"m{k}->logits" for k in range(5)], "estimate": [-2e-4, -1e-6, 0.0, 1e-5, 3e-1]})
    edges["effect"] = [-5.0, -1e-3, 1e-3, 2e-3, 5.0]
    edges = edges.assign(low=edges["effect"] - 1e-4, high=edges["effect"] + 1e-4, verdict="confirmed", group="random")
    figure = evidence.estimates({"base": Audit(edges, {}, 5, 9)})
    (drawn,) = (trace for trace in figure.data if trace.mode == "markers")
    for axis, shown, values in ((figure.layout.xaxis, drawn.x, "estimate"), (figure.layout.yaxis, drawn.y, "effect")):
        assert (np.diff(shown) > 0).all()
        ticks = dict(zip(axis.ticktext, axis.tickvals, strict=True))
        assert ticks.pop("0") == 0
        assert all(ticks[f"−{text}"] == -ticks[text] for text in ticks if text[0] != "−")
        assert np.sign(shown).tolist() == np.sign(edges[values]).tolist()
    ends = drawn.y[4] - drawn.error_y.arrayminus[4], drawn.y[4] + drawn.error_y.array[4]
    assert ends[0] < drawn.y[4] < ends[1]
    assert figure.layout.yaxis.ticktext[-1] == "1"
    assert np.sinh(figure.layout.yaxis.tickvals[-1]) * 2e-3 == pytest.approx(1.0), "half of the values are below 0.002"
