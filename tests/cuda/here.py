"""The device that these tests run on: the GPU, or what `PROBING_TEST_DEVICE` names, on which they are small.

`cpu` runs the bodies of almost all tests without a GPU. `pretend` runs them on two devices that are as strict as GPUs
about where tensors are (`pretend`), for what goes wrong between devices.
"""

import os

import numpy as np
import pytest
import torch

from tests.cuda import pretend

WANTED = os.environ.get("PROBING_TEST_DEVICE", "cuda")

if WANTED == "cuda" and not torch.cuda.is_available():
    pytest.skip("needs a CUDA device; PROBING_TEST_DEVICE=cpu runs it without", allow_module_level=True)
if WANTED == "pretend":
    pretend.begin()

DEVICE = torch.device(WANTED)
IS_GPU = DEVICE.type == "cuda"

only_on_a_gpu = pytest.mark.skipif(not IS_GPU, reason="is about CUDA itself")


def devices() -> list[torch.device]:
    """Those over which a model is spread: all GPUs; a lone one and the CPU; two that are pretended; or the CPU twice,
    which shows no more than that spreading works."""
    if IS_GPU and torch.cuda.device_count() == 1:
        return [torch.device("cuda", 0), torch.device("cpu")]
    count = torch.cuda.device_count() if IS_GPU else 2
    return [torch.device("cpu")] * 2 if WANTED == "cpu" else [torch.device(WANTED, i) for i in range(count)]


def finish() -> None:
    """Wait for what the device is doing."""
    if IS_GPU:
        torch.cuda.synchronize()


FLOAT32 = 1e-4
"""Largest relative difference from the CPU in float32."""


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The difference relative to the second, by Frobenius norms."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
