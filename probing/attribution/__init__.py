"""Samples in, one score for each edge and sample out: estimates of what removing an edge does to a loss.

Removing writer O from what reader H reads, and putting what stands in for it there (`references`), changes the loss, to
first order, by

    I(O -> H) = <dL/dH, reference - O>        summed over positions (the prompt's included) and the model's width

so a positive score means that removing the edge raises the loss. By the paper the reference is zero, and L a sample's
mean negative log-likelihood over its own answer's tokens given all before them. One forward and one backward pass give
every O and every gradient of a batch, and batched matrix products give the scores, in float32 and for each sample by
itself. Other estimates differ in where the gradient is taken, and in what is put in the place of the tangent.

`passes` has what every pass over a batch shares, and the losses; `contract` the products of changes and gradients; and
`attributor` puts them together for a batch. `stand_ins` is what passes take for a reference, and
`references` measures those that are not zero. Which estimate is made is a value (`probing.method`).

Source: arXiv:2509.21044, section 2; Syed et al. 2023 (arXiv:2310.10348) for the method; Hanna et al. 2024
(arXiv:2403.17806) for gradients averaged on the way from the reference.
"""

from probing.attribution.attributor import Attributor
from probing.attribution.passes import Predictions
from probing.attribution.references import find_references, written_on
from probing.attribution.stand_ins import ZERO, Fixed, References, StandIns

__all__ = ["ZERO", "Attributor", "Fixed", "Predictions", "References", "StandIns", "find_references", "written_on"]
