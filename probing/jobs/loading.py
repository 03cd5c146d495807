"""The models that a worker has in memory, one at a time or two, and the GPUs that it has to itself meanwhile.

Several workers may run on a machine: each takes a GPU that no other has. A model that needs more than one takes all.
"""

import gc
import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from probing.attribution import Attributor
from probing.checkpoints import Checkpoint, find_again
from probing.jobs.plan import Wanted
from probing.jobs.progress import Progress
from probing.models import DTYPES, load_model, load_tokenizer, pick_device, placement, use_threads_for
from probing.store.files import try_lock


def gpu_lock(device: torch.device) -> Path:
    """The file whose lock a worker holds while it has models on a GPU."""
    return Path(tempfile.gettempdir()) / f"probing-{os.getuid()}-{torch.cuda.get_device_properties(device).uuid}.lock"


def wait_for_one(locks: Sequence[Path], report: Progress, pause: float = 1.0) -> tuple[int, IO[bytes]]:
    """Take whichever lock is free, which is held until the returned handle is closed or the process ends; says that it
    waits. Returns its place too."""
    while True:
        for place, lock in enumerate(locks):
            if (handle := try_lock(lock)) is not None:
                return place, handle
        report("waiting for the GPU", 0, 1)
        time.sleep(pause)


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
    threads: int | None = None
    """The most that one that is not small gets on a CPU; all cores if that is not said."""
    elsewhere: bool = False
    """Whether checkpoints were found on another machine, so that this one's must be shown to be the same."""
    _loaded: dict[Wanted, tuple[Attributor, Any]] = field(default_factory=dict)
    """By what was wanted, the last one at the end."""
    _gpus: dict[int, IO[bytes]] = field(default_factory=dict)
    """The locks of those that it has."""

    def load(self, wanted: Wanted, report: Progress) -> tuple[Attributor, Any]:
        """A model, ready to be scored, and its tokenizer."""
        if wanted not in self._loaded:
            small = [name for name, (attributor, _) in self._loaded.items() if _size(attributor) <= SMALL]
            large = [name for name in self._loaded if name not in small][::-1][: self.large - 1]
            self._loaded = {name: self._loaded[name] for name in (*large, *small[1 - MOST :])}
            self._loaded[wanted] = self.second(wanted, report)
        self._loaded[wanted] = self._loaded.pop(wanted)
        use_threads_for(self._loaded[wanted][0].model, self.threads)  # another may have been loaded since
        return self._loaded[wanted]

    def second(self, wanted: Wanted, report: Progress) -> tuple[Attributor, Any]:
        """As `load`, beside the model that is kept: this one is gone when whoever asked for it lets go of it."""
        device, dtype = pick_device(wanted.numerics.device), DTYPES[wanted.dtype]
        if device.type == "cuda":
            device = self._gpu(wanted.checkpoint, dtype, report)
        checkpoint = find_again(wanted.checkpoint) if self.elsewhere else wanted.checkpoint
        model = load_model(checkpoint, device, dtype, wanted.numerics.attention)
        use_threads_for(model, self.threads)
        return Attributor(model, wanted.granularity), load_tokenizer(checkpoint)

    def _gpu(self, checkpoint: Checkpoint, dtype: torch.dtype, report: Progress) -> torch.device:
        """The GPU that this process has, or takes; all of them for a model that is too large for one."""
        locks = [gpu_lock(torch.device("cuda", place)) for place in range(torch.cuda.device_count())]
        if not self._gpus:
            place, handle = wait_for_one(locks, report)
            self._gpus[place] = handle
        device = torch.device("cuda", min(self._gpus))
        if len(self._gpus) < len(locks) and placement(checkpoint, device, dtype) == "auto":
            while self._gpus:  # whoever kept one and waited for another would wait for whoever does so too
                self._gpus.popitem()[1].close()
            for place, lock in enumerate(locks):
                self._gpus[place] = wait_for_one([lock], report)[1]
        return device

    def let_go(self) -> None:
        """Forget all models, and leave GPUs to others, also those taken for a model that did not load."""
        if not self._loaded and not self._gpus:
            return
        self._loaded.clear()
        gc.collect()
        if self._gpus:
            torch.cuda.empty_cache()
        while self._gpus:
            self._gpus.popitem()[1].close()

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
