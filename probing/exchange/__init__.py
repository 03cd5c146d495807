"""Circuits and scores as others have them. All are read back.

- EAP-IG's JSON (`eap`) and .pt (`pt`, which needs PyTorch), and GraphML for graph programs (`graphml`): circuits.
- Frames of pandas (`frames`): scores of every question, or a circuit's edges.
- TransformerLens (`hooks`): its names for what writes and what reads, and the edges of its attribution patching.
"""

from importlib import import_module
from typing import Any

from probing.exchange.circuit_file import CircuitFile
from probing.exchange.eap import as_eap_json, eap_json, read_eap_json
from probing.exchange.frames import circuit_from_frame, circuit_to_frame, from_frame, to_frame
from probing.exchange.graphml import as_graphml, read_graphml
from probing.exchange.hooks import (
    Hook,
    from_edge_scores,
    from_hook_frame,
    reader_at,
    reader_hooks,
    to_circuit_edges,
    to_edge_scores,
    to_hook_frame,
    writer_at,
    writer_hooks,
)

__all__ = [
    "CircuitFile",
    "Hook",
    "as_eap_json",
    "as_graphml",
    "circuit_from_frame",
    "circuit_to_frame",
    "eap_json",
    "from_edge_scores",
    "from_frame",
    "from_hook_frame",
    "read_eap_json",
    "read_graphml",
    "read_pt",
    "reader_at",
    "reader_hooks",
    "to_circuit_edges",
    "to_edge_scores",
    "to_frame",
    "to_hook_frame",
    "write_pt",
    "writer_at",
    "writer_hooks",
]


def __getattr__(name: str) -> Any:
    """What takes PyTorch, which is loaded when it is first asked for: the pages do without."""
    if name in ("read_pt", "write_pt"):
        return getattr(import_module("probing.exchange.pt"), name)
    raise AttributeError(f"module 'probing.exchange' has no attribute '{name}'")
