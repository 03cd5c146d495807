"""The library: what `import probing` gives, what it costs, and that it says in its docstrings what it gives."""

import inspect
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probing
from probing.errors import ModelError, PairError, QuestionError, ScoresError
from tests.conftest import ROOT

HEAVY = ("torch", "transformers", "numpy", "pandas", "plotly", "streamlit", "duckdb")


def _fresh(code: str) -> set[str]:
    """What is loaded of `HEAVY` after some code, in a process of its own."""
    code += f"\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout.split()
    )


def test_the_import_costs_nothing_and_what_is_asked_for_is_loaded() -> None:
    assert _fresh("import probing; dir(probing)") == set()
    assert _fresh("import probing; probing.open_store") & {"torch", "plotly"} == set()


def test_drawing_loads_neither_streamlit_nor_torch() -> None:
    drawing = """
import sys; sys.modules['streamlit'] = sys.modules['torch'] = None  # as if not installed
import numpy as np, probing
from probing.graph import graph_of
from probing.scores import Scores
graph = graph_of(3)
rng = np.random.default_rng(0)
edges = [rng.normal(size=(5, graph.size)).astype("f4") for _ in "ab"]
made = [Scores(graph, tuple("abcde"), one, np.ones(5, "f4")) for one in edges]
probing.draw.circuit(*made); probing.draw.distribution(*made); probing.draw.changes(probing.compare(*made))
del sys.modules["streamlit"], sys.modules["torch"]
"""
    assert _fresh(drawing) & {"streamlit", "torch"} == set()


def test_a_name_that_is_not_there_is_none() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        probing.nothing  # noqa: B018


@pytest.mark.parametrize("name", probing.__all__)
def test_every_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(probing, name)
    assert name in dir(probing)
    says = inspect.getdoc(found)
    assert says and len(says) > 20
    if inspect.isfunction(found) and name != "open_store":
        assert "->" in str(inspect.signature(found)) and "Any" not in str(inspect.signature(found).return_annotation)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("ablate", "nats"), ("ablate", "[sample, edge]"), ("check", "95 %"), ("extract", "in the graph's order"),
        ("keep", "share f"),
    ],
)  # fmt: skip
def test_docstrings_say_shapes_and_units(name: str, unit: str) -> None:
    assert unit in inspect.getdoc(getattr(probing, name))


def test_the_reference_is_made_without_a_warning(tmp_path: Path) -> None:
    rule = re.search(r"^reference:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rule
    command = (
        rule[1].strip().replace("$(BIN)/python", f"{sys.executable} -W error").replace("docs/reference", str(tmp_path))
    )
    made = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "arn" not in made.stderr
    page = (tmp_path / "probing.html").read_text()
    for name in set(probing.__all__) - {"draw"}:
        assert f'id="{name}"' in page, name
    assert 'id="circuit"' in (tmp_path / "probing" / "draw.html").read_text()


@pytest.fixture(scope="module")
def pair(zoo: Path) -> Any:
    loaded = probing.load_pair("grpo")
    return replace(loaded, questions=loaded.questions[:40])


@pytest.fixture(scope="module")
def asked(pair: Any) -> Any:
    return probing.ask(pair, probing.Criteria(probing.Cut(0.3), n=10))


def test_each_model_is_scored_on_its_own_greedy_answers_to_what_both_get_right(pair: Any, asked: Any) -> None:
    questions = {one.id: one for one in pair.questions}
    assert len(asked.base) == len(asked.tuned) == 10
    for model, samples in ((pair.base, asked.base), (pair.tuned, asked.tuned)):
        for sample in samples[:4]:
            tokens = model.tokenizer(questions[sample.id].text, add_special_tokens=False)["input_ids"]
            fed = torch.tensor([[model.tokenizer.bos_token_id, *tokens]])
            whole = model.model.generate(fed, do_sample=False, max_new_tokens=32)[0]  # alone, without padding
            assert tuple(whole.tolist()[: len(sample.input_ids)]) == sample.input_ids
            said = model.tokenizer.decode(whole[sample.answer_start :], skip_special_tokens=True)
            assert re.findall(r"\d+", said)[-1].lstrip("0") == questions[sample.id].reference.lstrip("0")


def test_two_models_in_no_file_are_the_same_pair(pair: Any, asked: Any, zoo: Path) -> None:
    loaded = [probing.load(str(zoo / name)) for name in ("base", "grpo")]
    own = probing.ask(probing.LoadedPair(*loaded, pair.questions, "last-number"), asked.selected.selection)
    assert (own.base, own.tuned) == (asked.base, asked.tuned)


def test_effects_are_checked_against_scores_of_the_same(pair: Any, asked: Any) -> None:
    names = pair.base.graph.edges[::40]
    scores = probing.score(pair.base, asked.base)
    effects = probing.ablate(pair.base, asked.base, names)
    found = probing.check(scores, effects).table
    assert list(found["edge"]) == list(names)
    np.testing.assert_allclose(found["effect"], effects.effects.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["estimate"], scores.edges[:, ::40].mean(0), rtol=1e-5)
    exact = probing.score(pair.base, asked.base[:2], method=probing.Method(path="exact"))
    np.testing.assert_allclose(effects.effects[:2], exact.edges[:, ::40], rtol=1e-3, atol=1e-6)
    other = probing.ablate(pair.base, asked.base, names[:1], probing.Method(loss="margin"))
    with pytest.raises(ScoresError, match="not of what the scores estimate"):
        probing.check(scores, other)


def test_what_is_kept_is_of_the_circuits_that_are_extracted(pair: Any, asked: Any) -> None:
    few = asked.base[:4]
    scores = probing.score(pair.base, few, method=probing.Method(path="norm-exact", loss="margin"))
    found = probing.keep(pair.base, few, {"base": scores}, random=2)
    assert found.sizes == {"base": probing.extract(scores).sum(1).tolist()}
    assert found.by_chance.shape == (2, 10)
    assert found.curves["base"].f[-1].value == 1
    with pytest.raises(ScoresError, match="not of this model's graph"):
        probing.keep(pair.base, few, {})


def test_what_is_not_there_is_said_in_a_sentence(pair: Any, asked: Any) -> None:
    for wrong, error, says in (
        (lambda: probing.load_pair("nobody"), PairError, "no pair 'nobody'"),
        (lambda: probing.load("./nowhere"), ModelError, "nowhere"),
        (lambda: probing.ablate(pair.base, asked.base, ["m9->a5<q>"]), ScoresError, "no edge 'm9->a5<q>'"),
        (lambda: probing.ask(replace(pair, questions=[])), QuestionError, "no questions"),
    ):
        with pytest.raises(error, match=says):
            wrong()
