"""On what, and in which dtypes, a job is computed: what was wished for, resolved into facts before anything is keyed.

`auto` lets a model answer in its own dtype on a GPU, and scores its edges in float32 where that fits: bfloat16
arithmetic moves intensity by some percent, and by other percents for other batches. On the CPU all is float32. Both
sides of a comparison, and the steps between them, are computed alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields

import torch

from probing.checkpoints import Checkpoint
from probing.fitting import total_bytes
from probing.jobs.plan import SIDES, Numerics, Plan, Request, Spec, make_request
from probing.models import attention_for, describe, own_dtype, pick_device
from probing.pairs import Registry

ROOM = 0.6
"""The share of a machine's GPUs that weights may take, so that what scoring keeps fits beside them."""


def make_plan(spec: Spec, registry: Registry) -> Plan:
    """Find what a job needs, and what it is computed on.

    Raises:
        PersonError: an unknown pair or question set, a model that is not there, questions that cannot be read, or no
            such device.
    """
    request = make_request(spec, registry)
    return planned(request, numerics_for(request))


def planned(request: Request, numerics: Numerics) -> Plan:
    """The plan of a request, computed so."""
    return Plan(**{field.name: getattr(request, field.name) for field in fields(Request)}, numerics=numerics)


def numerics_for(request: Request) -> Numerics:
    """In what a request is computed on this machine.

    Raises:
        ModelError: there is no such device, or a config cannot be read.
    """
    spec, models = request.spec, [request.checkpoints[side] for side in SIDES]
    return numerics_of(spec.device, spec.dtype, spec.attention, models)


def devices() -> tuple[str, ...]:
    """The devices of this machine."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def numerics_of(device: str, dtype: str, attention: str, checkpoints: Sequence[Checkpoint]) -> Numerics:
    """In what models run that are to be compared, the base first; their configs are read.

    Raises:
        ModelError: there is no such device, or a config cannot be read.
    """
    found = pick_device(device).type
    alike = attention if all(attention_for(c, attention) == attention for c in checkpoints) else "eager"
    if dtype != "auto":
        return Numerics(found, dtype, dtype, alike)
    if found == "cpu":
        return Numerics(found, "float32", "float32", alike)
    own = own_dtype(checkpoints[0])
    return Numerics(found, own, scoring_dtype(own, [describe(c).parameters for c in checkpoints]), alike)


def scoring_dtype(own: str, parameters: Iterable[int]) -> str:
    """float32 if models of so many parameters leave room as such, on GPUs with nothing else on them; else their own."""
    return "float32" if max(parameters) * 4 < ROOM * total_bytes() else own
