"""Devices `pretend:0` and `pretend:1`, as strict as GPUs and made of the processor's memory (`pretend.cpp`).

What would go wrong on GPUs because a tensor is where it should not be goes wrong on them, too. They are compiled when
they are first asked for, which takes half a minute and a C++ compiler.
"""

import contextlib
import hashlib
import subprocess
import tempfile
import types
from pathlib import Path

import torch

SOURCE = Path(__file__).with_suffix(".cpp")


def begin() -> None:
    """Have PyTorch know the devices."""
    torch.ops.load_library(_compiled())
    torch.utils.rename_privateuse1_backend("pretend")
    module = types.ModuleType("pretend")
    for name, value in {
        "is_available": True, "is_initialized": True, "_is_in_bad_fork": False, "device_count": 2, "current_device": 0,
        "manual_seed_all": None, "synchronize": None, "set_device": None, "get_amp_supported_dtype": [torch.bfloat16],
    }.items():  # fmt: skip
        setattr(module, name, lambda *_, value=value: value)
    module.device = contextlib.nullcontext  # type: ignore[attr-defined]
    torch._register_device_module("pretend", module)


def _compiled() -> Path:
    """Kept for the next time, by what it was made of."""
    made_of = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"pretend-{made_of}.so"
    if not library.exists():
        home = Path(torch.__file__).parent
        headers = [f"-I{home / 'include'}", f"-I{home / 'include/torch/csrc/api/include'}"]
        libraries = [f"-L{home / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{home / 'lib'}"]
        part = library.with_suffix(".part")
        command = ["g++", "-O1", "-shared", "-fPIC", "-std=c++20", *headers, str(SOURCE), "-o", str(part), *libraries]
        subprocess.run(command, check=True)
        part.rename(library)
    return library
