"""Where answers are cut: shares of the mean length and numbers of tokens, their keys, and cuts that are the same."""

import json
import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probing import cli
from probing.cuts import MOST_TOKENS, Cut, as_one, cut_of, listed
from probing.errors import SelectionError
from probing.jobs.keys import key_of
from probing.jobs.plan import Spec, make_request
from probing.jobs.worker import follow
from probing.pairs import load_registry
from probing.report import evaluations, report
from probing.rollouts import ALPHAS, Answer, Criteria, samples, select
from probing.store import open_store
from probing.store.records import ComparisonRow, RunRow, same_tokens

SHARES = st.integers(1, 10_000).map(lambda parts: Cut(parts / 10_000))
ANY_SHARE = st.floats(0, 1, exclude_min=True).map(Cut)
TOKENS = st.integers(1, MOST_TOKENS).map(lambda count: Cut(count, "tokens"))


@given(SHARES | ANY_SHARE | TOKENS)
def test_a_cut_comes_back_from_what_json_and_an_address_hold(cut: Cut) -> None:
    assert Cut.from_json(json.loads(json.dumps(cut.as_json()))) == cut
    assert Cut.from_json(str(cut)) == cut
    assert cut_of(*((cut.amount, None) if cut.unit == "alpha" else (math.nan, cut.amount))) == cut
    criteria = Criteria(cut, n=3)
    assert Criteria.from_json(criteria.as_json()) == criteria
    spec = Spec("grpo", "addition", (cut,), criteria)
    assert Spec.from_json(json.loads(json.dumps(spec.as_json()))) == spec


@given(SHARES, st.fractions(1, 5000, max_denominator=500))
def test_a_share_is_of_the_mean_length_and_never_less_than_a_token(cut: Cut, mean: Fraction) -> None:
    parts = round(cut.amount * 10_000)
    assert cut.tokens_of(mean) == max(1, parts * mean.numerator // (10_000 * mean.denominator))


@given(TOKENS, st.fractions(1, 5000, max_denominator=500))
def test_tokens_are_so_many_whatever_the_mean_length(cut: Cut, mean: Fraction) -> None:
    assert cut.tokens_of(mean) == cut.amount


def test_cuts_stand_in_order_shares_before_tokens() -> None:
    order = [Cut(0.03), Cut(0.5), Cut(1.0), Cut(1, "tokens"), Cut(12, "tokens")]
    assert all(one < other for one, other in pairwise(order))


@pytest.mark.parametrize(
    "text", ["", "0", "0 tokens", "-1", "1.5", "7", "nan", "inf", "3 token s", "3.5 tokens", "9" * 9 + " tokens", "all"]
)
def test_what_is_no_cut_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(SelectionError):
        Cut.from_json(text)


def test_cuts_in_words() -> None:
    share, tokens = Cut(0.1), Cut(3, "tokens")
    assert [share.words, share.short, str(share)] == ["α = 0.1", "α 0.1", "0.1"]
    assert [tokens.words, tokens.short, str(tokens)] == ["first 3 tokens", "first 3 tokens", "3 tokens"]
    assert [Cut(1, "tokens").words, str(Cut(1, "tokens"))] == ["first token", "1 token"]
    assert listed([Cut(0.03), share, tokens]) == "α 0.03, 0.1, first 3 tokens"
    assert as_one([Cut(0.03), share, Cut(1, "tokens")], 1) == "0.03, 0.1: first token"
    assert as_one([tokens], 3, "α ") == "first 3 tokens"
    assert as_one([Cut(0.03), share], 1, "α ") == "α 0.03, 0.1: first token"
    assert as_one([share], None) == "0.1"


def test_keys_of_what_was_computed_before_cuts_had_units_stay() -> None:
    # Made by the version in which a selection had a number `alpha`.
    known = {
        Criteria(): "32ddc2131e9837fd",  # pragma: allowlist secret
        Criteria(Cut(0.03)): "85fbfceafc46f29e",  # pragma: allowlist secret
        Criteria(Cut(0.1), n=12, seed=7, cohort="tuned_only"): "1ec8b7f42ef7b2cc",  # pragma: allowlist secret
        Criteria(Cut(1.0), beta=0, gamma=9.0, mean_length="mean"): "26f4eb0a10e66162",
    }
    assert [key_of(criteria.as_json()) for criteria in known] == [*known.values()]
    specs = {
        Spec("grpo", "addition"): "56ff3c2e1e28309b",  # pragma: allowlist secret
        Spec("grpo", "addition", (Cut(0.5),), Criteria(n=12)): "6d36722494a40a4e",  # pragma: allowlist secret
    }
    assert [key_of(spec.as_json()) for spec in specs] == [*specs.values()]
    request = make_request(Spec("grpo", "addition"), load_registry())
    assert [request.request_key(selection) for selection in request.spec.selections()] == [
        "4afbfa2f7b8051f3", "d8fb6ebaf58ec722", "eb2fa66a148292a7", "4ae56724947ada37",  # pragma: allowlist secret
    ]  # fmt: skip


def test_answers_shorter_than_a_cut_in_tokens_stay_whole_and_none_is_dropped_for_it() -> None:
    answers = [Answer(f"q{i}", (1, 2), tuple(range(length)), "", True) for i, length in enumerate((2, 3, 3, 4))]
    by_share = select(answers, answers, Criteria(Cut(1.0)))
    by_tokens = select(answers, answers, Criteria(Cut(3, "tokens")))
    assert by_tokens.ids == by_share.ids, "which questions are kept depends on no cut"
    assert (by_tokens.cut, [sample.answer_length for sample in samples(answers, by_tokens)]) == (3, [2, 3, 3, 3])
    long = select(answers, answers, Criteria(Cut(99, "tokens")))
    assert [sample.answer_length for sample in samples(answers, long)] == [2, 3, 3, 4]


def test_cuts_that_score_the_same_tokens_are_one_row_and_one_table_line(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.duckdb")
    cuts = (*ALPHAS[:2], Cut(1, "tokens"), Cut(3, "tokens"))
    spec = Spec("grpo", "addition", cuts, Criteria(n=6))
    assert follow(store, store.queue.submit(spec.as_json()), lambda *_: None).status == "done"
    rows = [ComparisonRow.of(row) for row in store.comparisons.table().to_dict("records")]
    assert sorted(row.at for row in rows) == list(cuts), "the store says of each how it was given"
    one, three = same_tokens(rows)
    assert (one.cuts, one.words, three.words) == (cuts[:3], "0.03, 0.1: first token", "first 3 tokens")
    assert len({row.comparison_key for row in one.rows}) == 3
    scored = [store.runs.scores(row.base_run or "").edges for row in one.rows]
    assert all((edges == scored[0]).all() for edges in scored), "the very same scores"
    assert (one.row(Cut(0.1)).at, one.row(Cut(0.5)).at) == (Cut(0.1), Cut(0.03))
    assert len(same_tokens([*rows, replace(rows[0], pair="ppo")])) == 3, "pairs stay apart"
    unscored = [replace(row, base_run=None, tuned_run=None) for row in rows]
    assert len(same_tokens(unscored)) == 4, "what has not been scored scores no tokens that another does"
    lines = [line.split(" | ")[:3] for line in report(store, load_registry(), ["grpo"]) if "→" in line and "| " in line]
    assert lines[0][:2] == ["| 0.03, 0.1, 1 token", "1"]
    assert lines[1][:2] == ["| 3 tokens", "3"]
    assert len(lines) == 2
    assert {row.at for row in map(RunRow.of, store.runs.table().to_dict("records"))} == set(cuts)
    assert evaluations(store, "grpo", "addition", same_tokens(rows)) == []
    store.close()


@pytest.mark.parametrize("given", [("--tokens", "0"), ("--tokens", "x"), ("--alpha", "7"), ("--alpha", "x")])
def test_a_command_refuses_what_is_no_cut(given: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["probe", "grpo", *given])
    assert f"'{given[1]}' is not " in capsys.readouterr().err


def test_a_command_takes_cuts_of_both_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "store.duckdb")
    assert cli.main(["probe", "grpo", "--alpha", "0.3", "--tokens", "3", "9", "--detach", "--store", path]) == 0
    assert cli.main(["jobs", "--store", path]) == 0
    assert capsys.readouterr().out.rstrip().endswith("α 0.3, first 3 tokens, first 9 tokens")
