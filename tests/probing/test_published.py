from probing.cuts import Cut
from probing.metrics import PATTERN
from probing.pairs import Pair
from probing.published import published


def _pair(base: str, tuned: str) -> Pair:
    return Pair(name="p", title="P", algorithm="GRPO", kind="online RL", base=base, tuned=tuned, questions=("q",))


def test_the_papers_rows_are_found_by_models_questions_and_cut() -> None:
    pair = _pair("deepseek-ai/deepseek-math-7b-instruct", "deepseek-ai/deepseek-math-7b-rl")
    (row,) = published(pair, "MATH")
    assert row.at == Cut(0.1)
    assert set(row.metrics) == set(PATTERN)
    assert row.metrics["distribution_kurtosis"] == (357, 223)
    assert published(pair, "MATH", Cut(0.1)) == [row]
    assert not published(pair, "MATH", Cut(0.3))
    assert not published(pair, "GSM8K")


def test_another_pair_has_none() -> None:
    assert not published(_pair("deepseek-ai/deepseek-math-7b-instruct", "somebody/else"), "MATH")
