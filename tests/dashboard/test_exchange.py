"""Circuits that are brought to a pair whose graph is another than theirs."""

import numpy as np
import pytest

from dashboard.exchange import members_in
from probing.errors import CircuitError
from probing.exchange import CircuitFile, as_eap_json, as_graphml
from probing.graph import Heads, ResidualGraph, graph_of

HEADS = graph_of(2, False, "heads", (), (Heads(4, 4),) * 2)
GROUPED = graph_of(2, False, "heads", (), (Heads(4, 2, bias=True),) * 2)
BROUGHT = ("input->a0.h3<k>", "input->a0.h2<k>", "a0.h1->a1.h0<q>", "m0->logits")


def _files(graph: ResidualGraph, edges: tuple[str, ...]) -> dict[str, bytes]:
    inside = np.zeros(graph.size, bool)
    inside[[graph.number(name) for name in edges]] = True
    circuit = CircuitFile(graph, np.ones(graph.size), inside)
    return {"json": as_eap_json(circuit).encode(), "graphml": as_graphml(circuit.as_graph()).encode()}


@pytest.mark.parametrize("kind", ["json", "graphml"])
@pytest.mark.parametrize(
    ("graph", "members"),
    [
        (HEADS, set(BROUGHT)),
        (GROUPED, {"input->a0.g1<k>", "a0.h1->a1.h0<q>", "m0->logits"}),
        (graph_of(2), {"input->a0<k>", "a0->a1<q>", "m0->logits"}),
        (graph_of(2).at("blocks"), {"input->a0<qkv>", "a0->a1<qkv>", "m0->logits"}),
    ],
)
def test_heads_become_edges_of_the_pairs_graph(kind: str, graph: ResidualGraph, members: set[str]) -> None:
    assert members_in(f"{kind} {graph}", _files(HEADS, BROUGHT)[kind], graph) == members


@pytest.mark.parametrize("kind", ["json", "graphml"])
def test_a_circuit_that_the_pairs_graph_has_not_is_refused_with_a_sentence(kind: str) -> None:
    brought = _files(graph_of(2), ("m0->a1<k>",))[kind]
    with pytest.raises(CircuitError, match=r"not this pair's|no edge 'm0->a1<k>'"):
        members_in(f"blocks in {kind}", brought, HEADS)


def test_a_name_that_is_none_is_refused_with_a_sentence() -> None:
    text = _files(HEADS, BROUGHT)["graphml"].replace(b">m0<", b">m9999999999<")
    with pytest.raises(CircuitError, match="no edge 'm9999999999->logits'"):
        members_in("strange", text, HEADS)
    with pytest.raises(CircuitError, match="This pair has no edge"):
        members_in("huge", text.replace(b"9999999999", b"9" * 5000), HEADS)
