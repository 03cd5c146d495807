"""A person's own pairs: the file beside the store, what gets into it, and what is refused."""

import threading
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probing import own_pairs
from probing.checkpoints import look
from probing.errors import ModelError, PairError
from probing.pairs import DATA, SMALL, load_registry, own_path

PAIR = {
    "title": "My GRPO", "algorithm": "GRPO", "kind": "online RL", "base": str(DATA / "zoo" / "base"),
    "tuned": str(DATA / "zoo" / "grpo"), "questions": ["addition"], "template": "plain", "max_new_tokens": 24,
}  # fmt: skip
SET = {"title": "My sums", "file": str(DATA / "questions" / "addition.jsonl"), "grading": "last-number"}


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROBING_OWN_PAIRS", raising=False)
    monkeypatch.setenv("PROBING_STORE", str(tmp_path / "store.duckdb"))


def test_a_pair_is_offered_at_once_and_gone_at_once(tmp_path: Path) -> None:
    before = load_registry()
    assert own_pairs.add(PAIR) == "my-grpo"
    assert own_path() == tmp_path / "pairs-own.toml"
    added = load_registry().pair("my-grpo")
    assert {name: getattr(added, name) for name in PAIR} == PAIR | {"questions": ("addition",)}
    assert list(load_registry().pairs) == [*before.pairs, "my-grpo"]
    own_pairs.add(PAIR | {"title": "Second"}, SET)
    assert load_registry().pair("second").questions == ("my-sums",)
    assert load_registry().question_set("my-sums").file == Path(SET["file"])
    own_pairs.remove("my-grpo")
    assert list(own_pairs.content()["pairs"]) == ["second"]
    own_pairs.remove("second")
    assert own_pairs.content() == {"questions": {}, "pairs": {}}, "nothing names its questions any more"
    assert load_registry() == before
    with pytest.raises(PairError, match="no pair 'grpo' of your own"):
        own_pairs.remove("grpo")


def test_a_pair_takes_the_place_of_its_own_only() -> None:
    own_pairs.add(PAIR, SET)
    own_pairs.add(PAIR | {"title": "Other"})
    assert own_pairs.add(PAIR | {"max_new_tokens": 7}, SET | {"grading": "exact"}, instead=True) == "my-grpo"
    found = load_registry()
    assert (found.pair("my-grpo").max_new_tokens, found.question_set("my-sums").grading) == (7, "exact")
    assert found.pair("other").max_new_tokens == 24
    with pytest.raises(PairError, match="a pair called 'GRPO' already"):  # the registry's
        own_pairs.add(PAIR | {"title": "GRPO"}, instead=True)


@pytest.mark.parametrize(
    ("change", "questions", "said"),
    [
        ({"title": "GRPO"}, None, "a pair called 'GRPO' already"),
        ({"title": "grpo"}, None, "a pair called 'grpo' already"),
        ({"title": "…"}, None, "no letter or digit"),
        ({"questions": ["nope"]}, None, "question set 'nope', which pairs-own.toml|question set 'nope'"),
        ({"max_new_tokens": 0}, None, "max_new_tokens"),
        ({"nonsense": 1}, None, "nonsense"),
        ({"base": "half \ud83d"}, None, "cannot be written"),
        ({}, SET | {"title": "Addition"}, "a question set called 'Addition' already"),
        ({}, {"title": "None", "grading": "exact"}, "either a file or a data set"),
    ],
)
def test_what_is_wrong_is_a_sentence_and_nothing_is_written(change: dict, questions: dict | None, said: str) -> None:
    with pytest.raises(PairError, match=said):
        own_pairs.add(PAIR | change, questions)
    assert not own_path().exists()


def test_what_somebody_wrote_by_hand_stays_and_a_name_that_is_registered_is_refused() -> None:
    own_path().write_text('[templates]\nshout = "{q}!"\n\n[pairs.hand]\n' + "".join(own_pairs.as_toml({"pairs": {
        "hand": PAIR | {"title": "By hand", "template": "shout", "shape": {
            "layers": 1, "width": 8, "mlp": 8, "heads": 1, "kv_heads": 1, "head_width": 8, "vocabulary": 9}}}}
    ).partition("[pairs.hand]\n")[2]))  # fmt: skip
    own_pairs.add(PAIR)
    hand = load_registry().pair("hand")
    assert (hand.template, hand.shape and hand.shape.layers) == ("{q}!", 1)
    text = own_path().read_text().replace("[pairs.hand]", "[pairs.grpo]")
    own_path().write_text(text)
    with pytest.raises(PairError, match="'grpo', which is there already"):
        load_registry()
    own_path().write_text("[pairs")
    with pytest.raises(PairError, match="not valid TOML"):
        load_registry()


def test_pairs_that_are_added_at_the_same_time_are_all_there() -> None:
    threads = [threading.Thread(target=own_pairs.add, args=(PAIR | {"title": f"Pair {i}"},)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(own_pairs.content()["pairs"]) == {f"pair-{i}" for i in range(8)}
    assert [path.name for path in own_path().parent.iterdir()] == ["pairs-own.toml"], "no part is left"


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
_VALUES = st.recursive(
    _TEXTS | st.integers(-(2**60), 2**60) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(_TEXTS, st.dictionaries(_TEXTS, st.dictionaries(_TEXTS, _VALUES) | _TEXTS), max_size=3))
def test_what_is_written_is_what_toml_reads(tables: dict) -> None:
    assert {k: v for k, v in tomllib.loads(own_pairs.as_toml(tables)).items() if v} == {
        k: v for k, v in tables.items() if v
    }


def test_a_model_is_looked_at_without_reading_its_weights(tmp_path: Path) -> None:
    assert look(PAIR["base"]) == "a folder with weights"
    assert look("owner/model") == "a hub id"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"no weights at all")
    assert look(str(tmp_path)) == "a folder with weights"
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        look(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert look(str(tmp_path)) == "a LoRA adapter of owner/base"
    for wrong in ("nowhere", "./nowhere", str(tmp_path / "none"), "a/b/c", "x\0y", "package:nope/f.gguf"):
        with pytest.raises(ModelError):
            look(wrong)


def test_a_large_file_and_an_adapter_are_not_small_though_their_folders_hold_little(tmp_path: Path) -> None:
    own_pairs.add(PAIR)
    assert load_registry().pair("my-grpo").is_small
    large = tmp_path / "large.gguf"
    with large.open("wb") as file:
        file.truncate(int(SMALL))
    own_pairs.add(PAIR | {"title": "GGUF", "base": str(large), "tuned": str(large)})
    assert not load_registry().pair("gguf").is_small
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/large"}')
    own_pairs.add(PAIR | {"title": "LoRA", "base": str(adapter), "tuned": str(adapter)})
    assert not load_registry().pair("lora").is_small


def test_a_models_name_tells_no_folder_once_it_has_gone(tmp_path: Path) -> None:
    own_pairs.add(PAIR | {"tuned": str(tmp_path / "gone")})
    assert load_registry().pair("my-grpo").arrow == "base → gone"
