"""The models that a worker has in memory, one at a time or two, and the GPU that it has to itself meanwhile."""

import gc
import importlib.metadata
import os
import platform
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from probing.attribution import Attributor
from probing.checkpoints import Checkpoint
from probing.graph import Granularity
from probing.jobs.plan import Numerics
from probing.jobs.progress import Progress
from probing.models import DTYPES, load_model, load_tokenizer, pick_device, use_threads_for
from probing.store.files import try_lock


def gpu_lock(device: torch.device) -> Path:
    """The file whose lock a worker holds while it has models on a GPU."""
    return Path(tempfile.gettempdir()) / f"probing-{os.getuid()}-{torch.cuda.get_device_properties(device).uuid}.lock"


def wait_for(lock: Path, report: Progress, pause: float = 1.0) -> IO[bytes]:
    """Take a lock, which is held until the returned handle is closed or the process ends; says that it waits."""
    while (handle := try_lock(lock)) is None:
        report("waiting for the GPU", 0, 1)
        time.sleep(pause)
    return handle


SMALL = 64 * 2**20
"""Bytes of the weights of a model that is kept beside the next."""

MOST = 4
"""Models that are kept, at most."""


@dataclass
class Models:
    """Loads models one after the other, and keeps the last; of small ones, the last few: whoever asks for an edge of a
    pair, and then for another, waits for no model."""

    large: int = 1
    """Of those that are not small, how many are kept."""
    _loaded: dict[tuple[Any, ...], tuple[Attributor, Any]] = field(default_factory=dict)
    """By what was wanted, the last one at the end."""
    _gpu: IO[bytes] | None = None

    def load(
        self, checkpoint: Checkpoint, how: Numerics, dtype: str, granularity: Granularity, report: Progress
    ) -> tuple[Attributor, Any]:
        """A model, ready to be scored, and its tokenizer."""
        wanted = (checkpoint.identity, how.device, dtype, how.attention, granularity)
        if wanted not in self._loaded:
            small = [name for name, (attributor, _) in self._loaded.items() if _size(attributor) <= SMALL]
            large = [name for name in self._loaded if name not in small][::-1][: self.large - 1]
            self._loaded = {name: self._loaded[name] for name in (*large, *small[1 - MOST :])}
            self._loaded[wanted] = self.second(checkpoint, how, dtype, granularity, report)
        self._loaded[wanted] = self._loaded.pop(wanted)
        use_threads_for(self._loaded[wanted][0].model)  # another may have been loaded since
        return self._loaded[wanted]

    def second(
        self, checkpoint: Checkpoint, how: Numerics, dtype: str, granularity: Granularity, report: Progress
    ) -> tuple[Attributor, Any]:
        """As `load`, beside the model that is kept: this one is gone when whoever asked for it lets go of it."""
        device = pick_device(how.device)
        if device.type == "cuda" and self._gpu is None:
            self._gpu = wait_for(gpu_lock(device), report)
        model = load_model(checkpoint, device, DTYPES[dtype], how.attention)
        use_threads_for(model)
        return Attributor(model, granularity), load_tokenizer(checkpoint)

    def let_go(self) -> None:
        """Forget all models, and leave the GPU to others, also where it was taken for a model that did not load."""
        if not self._loaded and self._gpu is None:
            return
        self._loaded.clear()
        gc.collect()
        if self._gpu is not None:
            torch.cuda.empty_cache()
            self._gpu.close()
            self._gpu = None

    def provenance(self) -> dict[str, Any]:
        """With what the last results were made; empty if all of them were there already."""
        if not self._loaded:
            return {}
        model = [*self._loaded.values()][-1][0].model
        return {
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": model.config._attn_implementation,
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),  # a plain text, or whoever unpickles it would have to load PyTorch
            "transformers": importlib.metadata.version("transformers"),
        }


def _size(attributor: Attributor) -> int:
    """Bytes of a model's weights."""
    return sum(weights.nbytes for weights in attributor.model.parameters())
