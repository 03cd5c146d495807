import pytest
import torch

from tests.families import Verdict, check, listed
from tests.shrunk import TYPES

LISTED = listed()


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # for tiny models more threads only wait for each other
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_scores_as_the_slow_twin_does_or_is_refused_in_a_sentence_and_the_readme_lists_it(kind: str) -> None:
    verdict: Verdict = check(kind)
    assert verdict.outcome != "wrong", verdict
    assert (verdict.outcome == "works") == (kind in LISTED), "run python -m tests.families --readme"
    if verdict.outcome == "refused":
        assert verdict.said.endswith(".")
        assert "'" in verdict.said, "a part is named"


def test_the_readme_lists_no_type_that_transformers_does_not_have() -> None:
    assert set(TYPES) >= LISTED
