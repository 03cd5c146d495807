"""What really happens without some edges: the model runs again, and every later block with it."""

from probing.ablation.removal import Removal, loss_without, run_without

__all__ = ["Removal", "loss_without", "run_without"]
