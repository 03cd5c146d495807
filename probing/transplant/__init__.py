"""One model's parts in the other: what a tuning changed, put in and taken out part by part, and what follows.

`parts` says which tensors are whose, and `pairing` puts them from one model into the other and back. `patching` does
the same with what parts write on a text that both read. `units` names each thing that can be measured, `measuring`
measures it, and `findings` makes numbers with intervals of that. Source: cross-model activation patching,
arXiv:2402.14811, section 5.
"""
