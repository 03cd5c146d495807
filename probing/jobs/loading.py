"""The models that a worker has in memory, one at a time or two, and the GPU that it has to itself meanwhile."""

import gc
import importlib.metadata
import os
import platform
import tempfile
import time
from dataclasses import dataclass
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


@dataclass
class Models:
    """Loads models one after the other, and keeps the last."""

    _wanted: tuple[Any, ...] = ()
    _loaded: tuple[Attributor, Any] | None = None
    _gpu: IO[bytes] | None = None

    def load(
        self, checkpoint: Checkpoint, how: Numerics, dtype: str, granularity: Granularity, report: Progress
    ) -> tuple[Attributor, Any]:
        """A model, ready to be scored, and its tokenizer."""
        wanted = (checkpoint.identity, how.device, dtype, how.attention, granularity)
        if self._loaded is None or self._wanted != wanted:
            self._loaded = None
            self._loaded, self._wanted = self.second(checkpoint, how, dtype, granularity, report), wanted
        return self._loaded

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
        """Forget the model, and leave the GPU to others."""
        if self._loaded is None:
            return
        self._loaded, self._wanted = None, ()
        gc.collect()
        if self._gpu is not None:
            torch.cuda.empty_cache()
            self._gpu.close()
            self._gpu = None

    def provenance(self) -> dict[str, Any]:
        """With what the last results were made; empty if all of them were there already."""
        if self._loaded is None:
            return {}
        model = self._loaded[0].model
        return {
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": model.config._attn_implementation,
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),  # a plain text, or whoever unpickles it would have to load PyTorch
            "transformers": importlib.metadata.version("transformers"),
        }
