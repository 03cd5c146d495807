import os
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)

settings.register_profile("however slow the machine", deadline=None)
settings.load_profile("however slow the machine")


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The small models that ship."""
    return ROOT / "data" / "zoo"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """However many the test before gave a larger model: sums are rounded in the order in which threads share them."""
    torch.set_num_threads(1)
