"""Circuits and scores as others have them. All are read back.

- EAP-IG's JSON (`eap`) and .pt (`pt`, which needs PyTorch), and GraphML for graph programs (`graphml`): circuits.
- Frames of pandas (`frames`): scores of every question, or a circuit's edges.
- TransformerLens (`hooks`): its names for what writes and what reads, and the edges of its attribution patching.
"""

from importlib import import_module
from typing import Any

from probing.exchange.circuit_file import CircuitFile
from probing.exchange.eap import as_eap_json, eap_json, read_eap_json
from probing.exchange.graphml import as_graphml, read_graphml

__all__ = [
    "CircuitFile",
    "as_eap_json",
    "as_graphml",
    "eap_json",
    "read_eap_json",
    "read_graphml",
    "read_pt",
    "write_pt",
]


def __getattr__(name: str) -> Any:
    """What takes PyTorch, which is loaded when it is first asked for: the pages do without."""
    if name in ("read_pt", "write_pt"):
        return getattr(import_module("probing.exchange.pt"), name)
    raise AttributeError(f"module 'probing.exchange' has no attribute '{name}'")
