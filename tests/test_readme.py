"""What the README tells a researcher to type, typed."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from probing import cli
from tests.conftest import ROOT


def test_the_commands_for_ones_own_pair_do_what_they_say(
    tmp_path: Path, zoo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    section = (ROOT / "README.md").read_text().split("## Your own pair")[1].split("\n## ")[0]
    (registry,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    (line,) = re.findall(r"`(\{\"id\".*?\})`", section)
    assert json.loads(line) == {"id": "1", "question": "12+34=", "answer": "46"}
    commands = re.findall(r"^    python -m (probing .*?)(?:  +#.*)?$", section, re.MULTILINE)
    commands = [command for command in commands if "http://" not in command]  # no server is there
    assert len(commands) == 7
    mine = tmp_path / "mine"
    shutil.copytree(zoo / "base", mine / "base-model")
    shutil.copytree(zoo / "grpo", mine / "tuned-model")
    sums = [(100 + 7 * i, 200 + 11 * i) for i in range(40)]
    rows = [{"id": str(i), "question": f"{a}+{b}=", "answer": str(a + b)} for i, (a, b) in enumerate(sums)]
    (mine / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (mine / "pairs.toml").write_text(registry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROBING_PAIRS", "mine/pairs.toml")
    monkeypatch.setenv("PROBING_STORE", str(tmp_path / "store.duckdb"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    typed = [sys.executable, "-m", *shlex.split(commands[0])]
    said = [subprocess.run(typed, capture_output=True, text=True, check=True).stdout]
    for command in commands[1:]:  # here, where everything is imported already
        assert cli.main(shlex.split(command)[1:]) == 0, command
        said.append(capsys.readouterr().out)
    planned, probed, merged, divided, reported, written, imported = said
    assert "40 questions" in planned
    assert "163 edges" in planned
    assert [text.split(":")[0] for text in probed.splitlines() if text.startswith("α")] == ["α 0.1", "α 0.3"]
    losses, intensities = (
        [re.search(rf"^α 0.1: .*{name} (\S+ -> \S+)", text, re.MULTILINE)[1] for text in (probed, merged, divided)]  # type: ignore[index]
        for name in ("loss", "intensity")
    )
    assert len(set(losses)) == 1, "the same answers"
    assert len(set(intensities)) == 3, "of other edges"
    assert reported.count("\n| 0.") == 2
    assert "base-model → tuned-model, GRPO" in reported
    assert "40 questions" in written
    assert len((mine / "answers.jsonl").read_text().splitlines()) == 40
    numbers = [re.search(r"intensity .*", text)[0] for text in (probed, imported)]  # type: ignore[index]
    assert numbers[0] == numbers[1], "the same answers have the same scores"


def test_the_lines_from_python_do_what_they_say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    section = (ROOT / "README.md").read_text().split("## From Python")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    shown: list[go.Figure] = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    found: dict[str, Any] = {}
    exec(code, found)
    relative, low, high = (int(number) for number in re.findall(r"[+-]\d+(?=%)", capsys.readouterr().out))
    assert -100 < low < relative < high < 0, "by the paper's definition intensity falls"
    assert found["effects"].effects.shape == (100, 1)
    assert len(shown) == 1
    counts = found["asked"].selected.counts
    right = [counts["both_correct"] + counts[only] for only in ("base_only", "tuned_only")]
    table = (ROOT / "README.md").read_text()
    said = [float(re.search(rf"\| `{model}` \|[^|]*\| (\S+) \|", table)[1]) for model in ("base", "grpo")]  # type: ignore[index]
    assert right == [500 * accuracy for accuracy in said]
