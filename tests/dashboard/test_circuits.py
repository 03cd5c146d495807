"""What Circuits and Movers show of edges that say the same twice, and what is shown first."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest

from dashboard import data, panels, tables
from dashboard.view import method_of
from dashboard.words import share_of_zero
from probing.cuts import Cut
from probing.edge_tables import edge_table, edge_values, mirrors
from probing.figures import strips
from probing.graph import ResidualGraph, graph_of
from probing.method import Method
from probing.metrics import Definition
from probing.scores import Scores
from tests.dashboard.apps import open_app, text_of

GRAPH = graph_of(3)


def _shares(scores: Scores) -> np.ndarray:
    """|sum| over the sum of sizes of the scores into each reader of more than one edge, question by question."""
    matrix = scores.matrix().astype(float)
    several = scores.graph.mask.sum(0) > 1
    return (np.abs(matrix.sum(1)) / np.abs(matrix).sum(1))[:, several]


def test_scores_of_the_store_sum_to_zero_just_where_the_method_says_so(full: Path) -> None:
    found = {}
    for row in data.comparison_rows():
        if row.ready and (row.pair, row.at) == ("grpo", Cut(0.3)):
            found[method_of(row)] = [_shares(scores) for scores in data.pair_scores(row.base_run, row.tuned_run)]
    assert {method.path for method in found} >= {"eap", "norm-exact", "exact"}
    for method, sides in found.items():
        for shares in sides:
            if method.sums_to_zero:
                assert np.median(shares) < 1e-5
                assert np.quantile(shares, 0.99) < 0.01, "but for the norm's epsilon"
            else:
                assert np.median(shares) > 0.1, method


def test_signs_are_explained_for_such_methods_alone() -> None:
    for method in (Method(), Method(loss="margin"), Method("heads", text="shared")):
        assert "sum to zero" in share_of_zero(method)
    for other in (Method(reference="mean"), Method(reference="patch"), Method(path="norm-exact"), Method(path="exact")):
        assert share_of_zero(other) == ""


def test_mirrors_in_the_store_are_the_edges_that_are_opposite_on_every_question(full: Path) -> None:
    (row,) = [r for r in data.comparison_rows() if (r.pair, r.at) == ("grpo", Cut(0.3)) and method_of(r) == Method()]
    assert row.graph is not None
    table = data.edge_table(row.comparison_key, row.graph)
    sides = [scores.edges.astype(float) for scores in data.pair_scores(row.base_run, row.tuned_run)]
    opposite = {
        (row.graph.edges[i], row.graph.edges[j])
        for i in range(row.graph.size)
        for j in range(i + 1, row.graph.size)
        if all(np.abs(s[:, i] + s[:, j]).sum() < 0.01 * np.abs(s[:, [i, j]]).sum() for s in sides)
    }
    assert opposite == {("input->m0", "a0->m0")}
    assert mirrors(table) == {"a0->m0": "input->m0"}
    exact = next(r for r in data.comparison_rows() if r.pair == "grpo" and r.ready and method_of(r).path == "exact")
    assert mirrors(data.edge_table(exact.comparison_key, row.graph)) == {}


def _pair(graph: ResidualGraph, mirrored: bool) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    made = []
    for scale in (1.0, 3.0):
        edges = scale * rng.normal(size=(20, graph.size)).astype("f4")
        if mirrored:
            edges[:, graph.number("a0->m0")] = -edges[:, graph.number("input->m0")]
        made.append(Scores(graph, tuple(f"q{i}" for i in range(20)), edges, np.ones(20, "f4")))
    return edge_table(graph, edge_values(*made, Definition(resamples=50)))


@pytest.mark.parametrize("mirrored", [True, False])
def test_mirrors_are_one_mover(mirrored: bool) -> None:
    table = _pair(GRAPH, mirrored)
    table.loc[table["edge"].isin(["input->m0", "a0->m0"]), "difference"] = 100.0
    rows = tables.movers(table)
    assert len(rows) == tables.MOVERS
    assert rows["edge"].iloc[0] == "input->m0"
    assert ("a0->m0" in set(rows["edge"])) != mirrored
    assert list(rows.loc[rows["mirror"] != "", "mirror"]) == (["a0->m0"] if mirrored else [])
    others = table[~table["edge"].isin(["input->m0", "a0->m0"])]["difference"].abs().nlargest(3)
    assert list(rows["difference"].abs().iloc[1 if mirrored else 2 :][:3]) == pytest.approx(list(others))


def test_each_mover_has_a_row_with_a_dot_for_each_question() -> None:
    rows = tables.movers(_pair(GRAPH, True)).head(4)
    differences = np.arange(12.0).reshape(3, 4) - 5
    dots, means = strips.movers(differences, rows, ("<b>x", "y", "z")).data
    for place in range(4):
        mine = np.abs(np.array(dots.y) - place) < 0.5
        assert list(np.array(dots.x)[mine]) == list(differences[:, place])
    assert list(means.y) == [0, 1, 2, 3]
    assert list(means.x) == list(rows["difference"])
    assert dots.text[0] == "&lt;b&gt;x"


def test_each_mover_opens_its_edge_and_what_signs_mean_is_said(full: Path) -> None:
    app = open_app("intensity", section="Top movers")
    assert not app.exception
    (table,) = [frame.value for frame in app.dataframe if "Edge" in frame.value]
    asked = [parse_qs(urlsplit(link).query) for link in table["Edge"]]
    assert "a0->m0" not in [of["pick"][0] for of in asked]
    assert table["Mirror"][[of["pick"][0] == "input->m0" for of in asked]].tolist() == ["a0->m0"]
    assert {of["pair"][0] for of in asked} == {"GRPO"}
    for page in ("circuits", "methods"):
        assert "sum to zero: a sign says" in text_of(open_app(page))


@pytest.mark.parametrize(
    ("headers", "first"),
    [
        ({}, panels.TOGETHER),
        ({"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0", "Sec-CH-UA-Mobile": "?0"}, panels.TOGETHER),
        ({"User-Agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Mobile/15E148"}, "difference"),
        ({"User-Agent": "anything", "Sec-CH-UA-Mobile": "?1"}, "difference"),
    ],
)
def test_a_phone_sees_the_difference_first(headers: dict[str, str], first: str) -> None:
    assert panels.usual(headers) == first
