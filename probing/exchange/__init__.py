"""Circuits as files of others: EAP-IG's JSON (`eap`) and .pt (`pt`, which needs PyTorch), and GraphML for graph
programs (`graphml`). All are read back."""

from probing.exchange.circuit_file import CircuitFile
from probing.exchange.eap import as_eap_json, eap_json, read_eap_json
from probing.exchange.graphml import as_graphml, read_graphml

__all__ = ["CircuitFile", "as_eap_json", "as_graphml", "eap_json", "read_eap_json", "read_graphml"]
