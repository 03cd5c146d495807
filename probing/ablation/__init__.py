"""What really happens without some edges: the model runs again, and every later block with it.

`removal` takes out any set of edges in one pass, `effects` each of many alone, and `files` keeps what came of it.
"""

from probing.ablation.effects import effects, effects_by_loss
from probing.ablation.files import Effects, read_effects, unfinished, write_effects
from probing.ablation.removal import Removal, loss_without, run_without

__all__ = [
    "Effects",
    "Removal",
    "effects",
    "effects_by_loss",
    "loss_without",
    "read_effects",
    "run_without",
    "unfinished",
    "write_effects",
]
