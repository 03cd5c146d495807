"""What really happens without some edges: the model runs again, and every later block with it.

`removal` takes out any set of edges in one pass, and puts there what stands in for each; `effects` takes out each of
many alone, and `files` keeps what came of it.
"""

from probing.ablation.effects import effects, effects_by_loss
from probing.ablation.files import Effects, read_effects, unfinished, write_effects
from probing.ablation.removal import Removal, Removed, loss_without, run_with, run_without

__all__ = [
    "Effects",
    "Removal",
    "Removed",
    "effects",
    "effects_by_loss",
    "loss_without",
    "read_effects",
    "run_with",
    "run_without",
    "unfinished",
    "write_effects",
]
