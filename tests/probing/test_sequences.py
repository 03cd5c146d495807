import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probing.errors import SequenceError
from probing.sequences import Sample, read_samples, write_samples

GOOD = {"id": "q1", "input_ids": [1, 2, 3, 4, 5], "answer_start": 2, "answer_length": 2}


def _write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_fed_and_scored_tokens_by_hand() -> None:
    sample = Sample("x", (10, 11, 12, 13, 14), answer_start=2, answer_length=2)
    assert sample.scored == (12, 13)
    assert sample.fed == (10, 11, 12)


@given(
    tokens=st.lists(st.integers(0, 99), min_size=2, max_size=9),
    name=st.text(min_size=1),
    data=st.data(),
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, tokens, name, data) -> None:
    start = data.draw(st.integers(1, len(tokens) - 1))
    sample = Sample(name, tuple(tokens), start, data.draw(st.integers(1, len(tokens) - start)))
    path = tmp_path_factory.mktemp("samples") / "s.jsonl"
    write_samples(path, [sample])
    assert read_samples(path) == [sample]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"answer_length": 0}, "has an empty answer"),
        ({"answer_start": 0}, "starts its answer at token 0"),
        ({"answer_length": 4}, "ends its answer at token 6, past its 5 tokens"),
        ({"input_ids": [1, 2, 77, 4, 5]}, "token 77, outside the model's vocabulary of 50"),
        ({"input_ids": [1, 2, -1, 4, 5]}, "token -1, outside"),
        ({"input_ids": list(range(20)), "answer_start": 18}, "feeds 19 tokens to a model whose context is 16"),
    ],
)
def test_a_sample_that_cannot_be_scored_is_refused(tmp_path: Path, change: dict, sentence: str) -> None:
    (sample,) = read_samples(_write(tmp_path / "s.jsonl", GOOD | change))
    with pytest.raises(SequenceError, match=sentence):
        sample.check(vocabulary=50, context=16)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no sequences"),
        ('{"id": "q1", "input_ids": [1, 2', "Line 1 of .* is not JSON"),
        ("[1, 2]", "Line 1 of .* is not a JSON object"),
        ('{"id": "q1"}', "lacks input_ids, answer_start, answer_length"),
        (json.dumps(GOOD | {"answer_start": 1.5}), "other than whole numbers"),
        (json.dumps(GOOD | {"input_ids": ["a"]}), "other than whole numbers"),
        (json.dumps(GOOD | {"input_ids": [True, 2, 3, 4, 5]}), "other than whole numbers"),
        (json.dumps(GOOD) + "\n" + json.dumps(GOOD), "the id 'q1' twice"),
    ],
)
def test_a_file_that_is_no_file_of_samples_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(text)
    with pytest.raises(SequenceError, match=sentence):
        read_samples(path)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SequenceError, match="Cannot read"):
        read_samples(tmp_path / "none.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(SequenceError, match="not a text file"):
        read_samples(tmp_path / "b.jsonl")


def test_a_line_separator_within_a_string_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(GOOD | {"id": "a\u2028b"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_samples(path)[0].id == "a\u2028b"
