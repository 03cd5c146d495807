"""Where each architecture writes to and reads from its residual stream, and the proof that we found the right places.

`families` finds the modules of a checkpoint: what writes (the module whose output, scaled if need be, is *added* to the
residual) and what reads (the module whose input is the residual). `projections` says how q, k and v are made behind it,
`heads` divides them,
`taps` take their gradients apart there, and `norms` pulls those back through the norm that they share. `recording`
hooks all that, so that an observer is told every writer's output and every reader's residual in the forward pass, and
in the backward pass the gradient of the loss with respect to every reader's residual, through that reader alone.
`proof` runs two short sequences and demands that all of it is true of this very model.
"""

from probing.architectures.families import Architecture, architecture_of
from probing.architectures.heads import HeadOutputs
from probing.architectures.proof import TOLERANCE, prove
from probing.architectures.recording import Observer, WriteGradients, recording
from probing.architectures.taps import Residual

__all__ = [
    "TOLERANCE",
    "Architecture",
    "HeadOutputs",
    "Observer",
    "Residual",
    "WriteGradients",
    "architecture_of",
    "prove",
    "recording",
]
