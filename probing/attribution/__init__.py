"""Samples in, one score for each edge and sample out: edge attribution patching with zero ablation.

Removing writer O from what reader H reads changes the loss, to first order, by

    I(O -> H) = -<dL/dH, O>        summed over positions (the prompt's included) and the model's width

so a positive score means that removing the edge raises the loss. L is a sample's mean negative log-likelihood over
its own answer's tokens given all before them. One forward and one backward pass give every O and every gradient of a
batch, and batched matrix products give the scores, in float32 and for each sample by itself.

`passes` has what every pass over a batch shares, `contract` the products, and `attributor` puts them together.

Source: arXiv:2509.21044, section 2; Syed et al. 2023 (arXiv:2310.10348) for the method.
"""

from probing.attribution.attributor import Attributor, attribute

__all__ = ["Attributor", "attribute"]
