import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from probing.checkpoints import find
from probing.cuts import Cut
from probing.errors import SelectionError
from probing.models import answer, load_model, load_tokenizer
from probing.pairs import load_registry
from probing.questions import encode, load_questions, prompt_for
from probing.rollouts import COHORTS, EVERY, Answer, Criteria, samples, select


def _answer(i: int, length: int, correct: bool = True, prompt: int = 4) -> Answer:
    return Answer(f"q{i}", tuple(range(prompt)), tuple(range(100, 100 + length)), "", correct)


def test_selection_by_hand() -> None:
    #        length: base tuned      T̄ = min(mean 10 of base, mean 12 of tuned) = 10 over the five both-correct ones
    lengths = [(10, 10), (10, 30), (2, 4), (8, 10), (20, 6)]
    base = [_answer(i, b) for i, (b, _) in enumerate(lengths)]
    tuned = [_answer(i, t) for i, (_, t) in enumerate(lengths)]
    base.append(_answer(5, 10, correct=False))
    tuned.append(_answer(5, 10))
    tuned[3] = replace(tuned[3], prompt_tokens=(1, 2))
    found = select(base, tuned, Criteria(Cut(0.25)))
    assert found.mean_length == 10
    assert found.cut == 2
    reasons = [outcome.reason for outcome in found.outcomes]
    assert reasons == [None, "length_range", "length_range", "prompt_lengths", "length_difference", "other_cohort"]
    assert found.counts == {
        "questions": 6, "both_correct": 5, "both_wrong": 0, "base_only": 0, "tuned_only": 1,
        "equal_prompts": 4, "in_range": 2, "alike": 1, "selected": 1,
    }  # fmt: skip
    assert "Only 1 of the 100 questions asked for are left" in (found.warning or "")


def test_every_question_can_be_selected_whoever_is_right_and_however_long() -> None:
    lengths, verdicts = (
        [(1, 400), (400, 1), (3, 3), (50, 60)],
        [(True, True), (False, True), (True, False), (False,) * 2],
    )
    base = [_answer(i, b, right) for i, ((b, _), (right, _)) in enumerate(zip(lengths, verdicts, strict=True))]
    tuned = [_answer(i, t, right) for i, ((_, t), (_, right)) in enumerate(zip(lengths, verdicts, strict=True))]
    found = select(base, tuned, replace(EVERY, at=Cut(5, "tokens"), n=4))
    assert (found.ids, found.cut, found.warning) == (("q0", "q1", "q2", "q3"), 5, None)
    some = select(base, tuned, replace(EVERY, at=Cut(5, "tokens"), n=2))
    assert len(some.ids) == 2
    assert "4 questions, 4 with equal prompt lengths" in select(base, tuned, replace(EVERY, n=9)).funnel


def test_samples_are_cut_and_short_answers_stay_whole() -> None:
    base, tuned = [_answer(0, 10), _answer(1, 3)], [_answer(0, 10), _answer(1, 3)]
    found = select(base, tuned, Criteria(Cut(0.7), beta=0, gamma=9))
    assert found.cut == 4  # floor(0.7 * 6.5)
    long, short = samples(base, found)
    assert (long.answer_start, long.answer_length, long.scored) == (4, 4, (100, 101, 102, 103))
    assert (short.answer_length, short.scored) == (3, (100, 101, 102))


def test_the_cut_is_exact_where_binary_fractions_are_not() -> None:
    answers = [_answer(0, 100)]
    assert int(0.29 * 100) == 28
    assert select(answers, answers, Criteria(Cut(0.29))).cut == 29
    assert select(answers, answers, Criteria(Cut(0.001))).cut == 1


def test_the_rule_for_the_mean_length() -> None:
    base, tuned = [_answer(0, 10)], [_answer(0, 12)]
    assert select(base, tuned, Criteria()).mean_length == 10
    assert select(base, tuned, Criteria(mean_length="mean")).mean_length == 11


@given(
    data=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.booleans()), min_size=1),
    cohort=st.sampled_from(COHORTS),
    n=st.integers(1, 8),
    delta=st.sampled_from([0.0, 0.1, 0.5, 0.6]),
)
def test_selection_equals_a_literal_reading_of_the_rules(data, cohort, n, delta) -> None:
    base = [_answer(i, b, right) for i, (b, _, right, _) in enumerate(data)]
    tuned = [_answer(i, t, right) for i, (_, t, _, right) in enumerate(data)]
    wanted = {"both_correct": (True, True), "both_wrong": (False, False), "base_only": (True, False),
              "tuned_only": (False, True)}[cohort]  # fmt: skip
    members = [row for row in data if (row[2], row[3]) == wanted]
    selection = Criteria(cohort=cohort, n=n, delta=delta)
    assume(members)
    t_bar = min(sum(row[0] for row in members) / len(members), sum(row[1] for row in members) / len(members))
    eligible = {
        f"q{i}"
        for i, row in enumerate(data)
        if (row[2], row[3]) == wanted
        and 0.5 * t_bar - 1e-9 <= (row[0] + row[1]) / 2 <= 1.5 * t_bar + 1e-9
        and abs(row[0] - row[1]) / ((row[0] + row[1]) / 2) <= delta + 1e-9
    }
    if not eligible:
        with pytest.raises(SelectionError):
            select(base, tuned, selection)
        return
    found = select(base, tuned, selection)
    assert set(found.ids) <= eligible
    assert len(found.ids) == min(n, len(eligible)) == found.counts["selected"]
    assert found.counts["alike"] == len(eligible)
    assert found.ids == select(base, tuned, selection).ids
    assert {o.question_id for o in found.outcomes if o.reason in (None, "not_drawn")} == eligible


def test_the_seed_decides_which_are_drawn() -> None:
    answers = [_answer(i, 10) for i in range(200)]
    drawn = {seed: select(answers, answers, Criteria(seed=seed)).ids for seed in (42, 43)}
    assert drawn[42] != drawn[43]
    assert [len(ids) for ids in drawn.values()] == [100, 100]


@pytest.mark.parametrize(
    ("base", "tuned", "selection", "sentence"),
    [
        ([(9, False)], [(9, True)], Criteria(), "No question is both correct: 0 both correct.* 1 tuned only"),
        ([(9, True)], [(99, True)], Criteria(gamma=1.5), "none is left after the filter on length range"),
        ([(9, True)], [(12, True)], Criteria(delta=0.1), "none is left after the filter on length difference"),
    ],
)
def test_none_left_says_which_filter_took_them(base, tuned, selection, sentence) -> None:
    rows = [[_answer(i, n, right) for i, (n, right) in enumerate(side)] for side in (base, tuned)]
    with pytest.raises(SelectionError, match=sentence):
        select(*rows, selection)


@pytest.mark.parametrize("wrong", [{"beta": 2.0}, {"delta": -1}, {"n": 0}, {"cohort": "all"}])
def test_senseless_rules_are_refused(wrong: dict) -> None:
    with pytest.raises(SelectionError, match="cannot be used"):
        Criteria(**wrong)


def test_answers_do_not_depend_on_the_batch_they_were_generated_in(zoo: Path) -> None:
    checkpoint = find(str(zoo / "base"))
    model = load_model(checkpoint, torch.device("cpu"), torch.float32)
    tokenizer = load_tokenizer(checkpoint)
    asked = load_questions(load_registry().question_set("addition"))[:24]
    prompts = [prompt_for(question, "plain", tokenizer).tokens for question in asked]
    assert len({len(p) for p in prompts}) > 1, "prompts of one length would not test the padding"
    alone = [answer(model, tokenizer, [prompt], 24)[0] for prompt in prompts]
    order = random.Random(0).sample(range(24), 24)
    together = answer(model, tokenizer, [prompts[i] for i in order], 24)
    assert [together[order.index(i)] for i in range(24)] == alone
    assert all(prompt[0] == tokenizer.bos_token_id for prompt in prompts)
    for tokens, text in alone:
        assert tokens[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token not in text


def test_greedy_answers_are_the_models_most_likely_tokens(zoo: Path) -> None:
    checkpoint = find(str(zoo / "grpo"))
    model = load_model(checkpoint, torch.device("cpu"), torch.float32)
    tokenizer = load_tokenizer(checkpoint)
    prompt = encode("3471+2853=", tokenizer)
    ((tokens, _),) = answer(model, tokenizer, [prompt], 24)
    logits = model(torch.tensor([[*prompt, *tokens]])).logits[0]
    assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == list(tokens)


def test_the_decoding_that_a_checkpoint_suggests_changes_no_answer(zoo: Path, tmp_path: Path) -> None:
    suggests = Path(shutil.copytree(zoo / "grpo", tmp_path / "suggests"))
    config = json.loads((suggests / "generation_config.json").read_text())
    config |= {"repetition_penalty": 3.0, "no_repeat_ngram_size": 1, "do_sample": True, "num_beams": 2,
               "max_length": 12, "min_new_tokens": 20, "suppress_tokens": [7], "use_cache": False}  # fmt: skip
    (suggests / "generation_config.json").write_text(json.dumps(config))
    found = []
    for folder in (zoo / "grpo", suggests):
        checkpoint = find(str(folder))
        model = load_model(checkpoint, torch.device("cpu"), torch.float32)
        widths: list[int] = []
        model.get_input_embeddings().register_forward_pre_hook(lambda _, fed, w=widths: w.append(fed[0].shape[1]))
        tokenizer = load_tokenizer(checkpoint)
        prompts = [encode(text, tokenizer) for text in ("3471+2853=", "7777+7777=")]
        found.append(answer(model, tokenizer, prompts, 24))
        assert set(widths[1:]) == {1}, "what has been read is not read again"
    assert found[0] == found[1]
