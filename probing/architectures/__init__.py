"""Where each architecture writes to and reads from its residual stream, and the proof that we found the right places.

`families` finds the modules of a checkpoint: what writes (the module whose output, scaled if need be, is *added* to the
residual) and what reads (the module whose input is the residual). `projections` says how q, k and v are made behind it,
`heads` divides them, `taps` tell them apart there, and `norms` pulls gradients back through the norm that they share.

Two things can be done with that. `recording` observes: one is told every writer's output and every reader's residual
in the forward pass, and in the backward pass the gradient of the loss with respect to every reader's residual, through
that reader alone. `rewriting` intervenes: one is told what is `writing`, and says what each reader reads instead.
With `skipping`, a pass goes on from a layer of an earlier one.

`proof` runs two short sequences and demands that all of it is true of this very model.
"""

from probing.architectures.families import Architecture, architecture_of
from probing.architectures.heads import HeadOutputs
from probing.architectures.norms import Norm, wide
from probing.architectures.proof import TOLERANCE, prove
from probing.architectures.recording import Influence, Observer, recording
from probing.architectures.rewriting import Intervention, rewriting
from probing.architectures.skipping import LayerOutputs, keeping, resumable, skipping
from probing.architectures.taps import Residual
from probing.architectures.writing import WriterOutputs, Written, watching

__all__ = [
    "TOLERANCE",
    "Architecture",
    "HeadOutputs",
    "Influence",
    "Intervention",
    "LayerOutputs",
    "Norm",
    "Observer",
    "Residual",
    "WriterOutputs",
    "Written",
    "architecture_of",
    "keeping",
    "prove",
    "recording",
    "resumable",
    "rewriting",
    "skipping",
    "watching",
    "wide",
]
