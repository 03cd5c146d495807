"""What really happens without some edges: the model runs again, and every later block with it.

`removal` takes out any set of edges in one pass, `effects` each of many alone.
"""

from probing.ablation.effects import effects
from probing.ablation.removal import Removal, loss_without, run_without

__all__ = ["Removal", "effects", "loss_without", "run_without"]
