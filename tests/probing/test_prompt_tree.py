"""Answers behind a shared prefix, against one row at a time."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probing.checkpoints import find
from probing.models import answer, ended, load_model, load_tokenizer
from probing.pairs import load_registry
from probing.questions import encode
from probing.zoo import word_problems
from probing.zoo.prompt_tree import Branches, log_probabilities, sample
from probing.zoo.recipes import ADAPTERS, HELD_OUT, QUESTIONS
from tests.tiny import tiny

PREFIX = [3, 9, 27, 20]
QUESTIONS_ = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14]]
ENDS = torch.tensor([2, 4])

MODEL = tiny("llama", torch.float64, "sdpa")

tokens = st.lists(st.integers(0, 60), min_size=1, max_size=6)


def _one_by_one(branches: Branches, temperature: float) -> list[list[torch.Tensor]]:
    found = []
    for question, answers in zip(branches.questions, branches.answers, strict=True):
        start = len(branches.prefix) + len(question)
        found.append([])
        for answered in answers:
            logits = MODEL(torch.tensor([branches.prefix + question + answered])).logits[0] / temperature
            log_p = logits.log_softmax(-1)
            found[-1].append(torch.stack([log_p[start + i - 1, token] for i, token in enumerate(answered)]))
    return found


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(tokens, st.lists(st.tuples(tokens, st.lists(tokens, min_size=1, max_size=3)), min_size=1, max_size=3))
def test_log_probabilities_are_those_of_separate_rows(
    prefix: list[int], asked: list[tuple[list[int], list[list[int]]]]
) -> None:
    branches = Branches(prefix, [question for question, _ in asked], [answers for _, answers in asked])
    with torch.no_grad():
        together, apart = log_probabilities(MODEL, branches, 0.7), _one_by_one(branches, 0.7)
    for ours, theirs in zip(together, apart, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b.to(a), rtol=1e-5, atol=1e-6)


def test_their_gradients_too() -> None:
    branches = Branches(PREFIX, QUESTIONS_, [[[1, 2], [7, 2]], [[9, 9, 2]], [[30]]])
    weight = MODEL.model.layers[1].mlp.up_proj.weight.requires_grad_()
    gradients = []
    for found in (log_probabilities(MODEL, branches), _one_by_one(branches, 1.0)):
        sum(part.sum() for answers in found for part in answers).backward()
        gradients.append(weight.grad)
        weight.grad = None
    weight.requires_grad_(False)
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


def test_greedy_answers_are_those_of_each_prompt_alone_and_stop_at_an_end() -> None:
    ends = {2, 4}
    found = sample(MODEL, PREFIX, QUESTIONS_, ENDS, 9, temperature=None)
    for question, (answered,) in zip(QUESTIONS_, found.answers, strict=True):
        row = PREFIX + question
        expected: list[int] = []
        while len(expected) < 9 and not ends & set(expected):
            with torch.no_grad():
                expected.append(int(MODEL(torch.tensor([row + expected])).logits[0, -1].argmax()))
        assert answered == expected
    assert len({tuple(a[0]) for a in found.answers}) > 1


def test_sampled_answers_come_as_often_as_their_probability_says() -> None:
    torch.manual_seed(0)
    each = 2000
    found = sample(MODEL, PREFIX, QUESTIONS_[:2], torch.arange(61), 1, each, temperature=0.5)
    for question, answers in zip(QUESTIONS_, found.answers, strict=False):
        with torch.no_grad():
            p = (MODEL(torch.tensor([PREFIX + question])).logits[0, -1] / 0.5).softmax(-1)
        counts = torch.bincount(torch.tensor([a[0] for a in answers]), minlength=61) / each
        assert p.max() > 0.02
        torch.testing.assert_close(counts, p.to(counts), rtol=0, atol=4 * (0.25 / each) ** 0.5)


# -- the problems ------------------------------------------------------------------------------------------------------


def test_every_problem_has_the_answer_that_its_story_asks_for() -> None:
    seen = word_problems.read_problems(QUESTIONS / "word-problems.jsonl")
    assert len(set(seen)) == HELD_OUT
    for problem in seen:
        first, second = (int(word) for word in problem.question.replace(".", " ").split() if word.isdigit())
        signs = {"away": "-", "takes": "-", "How many more": "-", "bags": "*"}
        sign = next((sign for words, sign in signs.items() if words in problem.question), "+")
        assert int(problem.answer) == {"+": first + second, "-": first - second, "*": first * second}[sign]
        assert int(problem.answer) > 0


def test_what_is_trained_on_is_what_is_probed() -> None:
    registry = load_registry()
    for name in ADAPTERS:
        pair = registry.pair(name)
        assert (pair.template, pair.stop) == (word_problems.TEMPLATE, word_problems.STOP)
        assert pair.max_new_tokens == word_problems.LONGEST_ANSWER
        assert pair.base == ADAPTERS[name].parent
        assert registry.question_set(pair.questions[0]).file == QUESTIONS / "word-problems.jsonl"


# -- answers that end with a text --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [" ", "06", "06 "])
def test_an_answer_ends_with_the_token_that_completes_the_stop(stop: str) -> None:
    checkpoint = find(load_registry().pair("grpo").tuned)
    model, tokenizer = load_model(checkpoint, torch.device("cpu"), torch.float32), load_tokenizer(checkpoint)
    prompts = [encode(text, tokenizer) for text in ("3471+2853=", "123+456=")]
    whole, cut = answer(model, tokenizer, prompts, 24), answer(model, tokenizer, prompts, 24, stop)
    for (every, text), (tokens, short) in zip(whole, cut, strict=True):
        assert every[: len(tokens)] == tokens
        if stop in text:
            assert short == text[: text.index(stop) + len(stop)]
        else:
            assert tokens == every
        assert ended(every, model, tokenizer, 24, stop) == (tokens, short)
        assert ended(tokens[:-1], model, tokenizer, 24, stop) is None
        assert ended(tokens[:-1], model, tokenizer, len(tokens) - 1, stop) == (
            tokens[:-1],
            tokenizer.decode(tokens[:-1]),
        )
    assert any(stop in text for _, text in whole)
