import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.serving import small_registry
from probing import cli
from probing.ablation import effects, loss_without, read_effects
from probing.attribution import Attributor, Predictions
from probing.checkpoints import find
from probing.jobs.plan import spec_of
from probing.jobs.worker import follow
from probing.method import Loss, Method
from probing.models import load_model
from probing.scores import Scores, read_scores, write_scores
from probing.scoring import attribute as score
from probing.sequences import Sample, write_samples
from probing.store import open_store
from probing.store.records import ComparisonRow
from tests.conftest import ROOT

GOOD = {"id": "q1", "input_ids": [1, 5, 9, 13, 4, 14, 3, 7, 15], "answer_start": 6, "answer_length": 3}


def _run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def _sequences(path: Path, **change: object) -> Path:
    path.write_text(json.dumps(GOOD | change) + "\n")
    return path


def _one_sentence(code: int, err: str) -> bool:
    return code == 2 and err.count("\n") == 1 and "Traceback" not in err


def test_a_store_is_prepared_snapshot_and_restored(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBING_PAIRS", str(small_registry(tmp_path, questions=8)))
    store, backup = tmp_path / "store.duckdb", tmp_path / "backup.duckdb"
    assert _run(capsys, "prepare", "--store", store)[0] == 0
    _, runs, _ = _run(capsys, "runs", "--store", store)
    assert len(runs.splitlines()) == 8 + 6, "both models at four cuts, and at one of them by three other methods"
    assert _run(capsys, "snapshot", "--store", store, "--out", backup)[:2] == (0, f"{backup}\n")
    code, _, err = _run(capsys, "snapshot", "--store", store, "--out", backup)
    assert _one_sentence(code, err)
    store.write_bytes(b"overwritten")
    code, _, err = _run(capsys, "runs", "--store", store)
    assert _one_sentence(code, err)
    code, out, _ = _run(capsys, "restore", backup, "--store", store)
    assert code == 0
    assert out.startswith(f"{store} is now {backup}; what was there is ")
    assert _run(capsys, "runs", "--store", store)[1] == runs
    code, _, err = _run(capsys, "restore", tmp_path / "few.jsonl", "--store", store)
    assert _one_sentence(code, err)
    assert "few.jsonl cannot be restored" in err
    assert _run(capsys, "runs", "--store", store)[1] == runs


def test_a_job_may_be_asked_for_more_than_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBING_PAIRS", str(small_registry(tmp_path)))
    probe = ["probe", "small", "--store", tmp_path / "store.duckdb", "--alpha", 0.3, "--samples", 4]
    code, _, err = _run(capsys, *probe, "--also", "magic")
    assert _one_sentence(code, err)
    assert "There is no task 'magic'. There are: ablation" in err
    more = ["--also", "ablation:side=base,strongest=2,random=0", "ablation:side=tuned,strongest=0,random=2"]
    assert _run(capsys, *probe, *more, "--detach")[0] == 0
    _, out, _ = _run(capsys, "jobs", "--store", tmp_path / "store.duckdb")
    assert out.rstrip().endswith("α 0.3 + ablation")
    code, out, _ = _run(capsys, *probe, *more)
    assert code == 0
    assert [line.split(" | ")[:4] for line in out.splitlines() if line.startswith("| 0.3")] == [
        ["| 0.3", "base", "2 strongest", "4"], ["| 0.3", "tuned", "2 random", "4"],
    ]  # fmt: skip


def test_attribute_writes_the_documented_file(tmp_path: Path, zoo: Path, capsys: pytest.CaptureFixture) -> None:
    write_samples(tmp_path / "s.jsonl", [Sample("b", (1, 4, 5, 6, 7), 2, 3), Sample("a", (1, 9, 8, 7), 3, 1)])
    out = tmp_path / "out.npz"
    code, _, _ = _run(capsys, "attribute", zoo / "base", "--sequences", tmp_path / "s.jsonl", "--out", out)
    assert code == 0
    with np.load(out) as file:
        assert set(file.files) == {"scores", "loss", "ids", "graph", "writers", "readers", "tokenizer", "method"}
        assert file["scores"].shape == (2, 13, 25)
        assert file["scores"].dtype == np.float32
        assert list(file["ids"]) == ["b", "a"]
        assert list(file["writers"][:4]) == ["input", "a0", "m0", "a1"]
        assert [*file["readers"][:5], file["readers"][-1]] == ["a0<q>", "a0<k>", "a0<v>", "m0", "a1<q>", "logits"]
        assert (file["scores"] != 0).any()
    coarse = tmp_path / "coarse.npz"
    arguments = ("attribute", zoo / "base", "--sequences", tmp_path / "s.jsonl", "--granularity", "blocks")
    assert _run(capsys, *arguments, "--out", coarse)[0] == 0
    with np.load(coarse) as file:
        assert list(file["readers"][:3]) == ["a0<qkv>", "m0", "a1<qkv>"]
    fine = read_scores(out)
    np.testing.assert_array_equal(read_scores(coarse).edges, fine.graph.merge(fine.edges, "blocks"))


def test_attribute_is_told_a_method_which_its_file_keeps(
    tmp_path: Path, zoo: Path, capsys: pytest.CaptureFixture
) -> None:
    sample = Sample("a", (1, 4, 5, 6, 7), 2, 3, counterpart=(1, 9, 5, 6, 7))
    write_samples(tmp_path / "s.jsonl", [sample])
    made = [tmp_path / "paper.npz", tmp_path / "exact.npz"]
    command = ("attribute", zoo / "base", "--sequences", tmp_path / "s.jsonl", "--out")
    assert _run(capsys, *command, made[0])[0] == 0
    code, out, _ = _run(capsys, *command, made[1], "--method", "norm-exact", "--loss", "margin", "--reference", "patch")
    assert code == 0
    assert out.rstrip().endswith("norms taken exactly, against a counterpart, margin as loss")
    found, method = read_scores(made[1]), Method(path="norm-exact", reference="patch", loss="margin")
    assert found.method == method
    attributor = Attributor(load_model(find(str(zoo / "base")), torch.device("cpu"), torch.float32))
    np.testing.assert_allclose(found.edges, score(attributor, [sample], method=method).edges, rtol=1e-4, atol=1e-6)
    code, _, err = _run(capsys, "compare", *made)
    assert _one_sentence(code, err)
    assert "scored in different ways (the paper's method and norms taken exactly, " in err
    write_samples(tmp_path / "s.jsonl", [replace(sample, counterpart=None)])
    code, _, err = _run(capsys, *command, tmp_path / "none.npz", "--reference", "patch")
    assert _one_sentence(code, err)
    assert "'a' has no counterpart" in err
    code, _, err = _run(capsys, *command, tmp_path / "none.npz", "--steps", "7")
    assert _one_sentence(code, err)
    assert "The method eap takes no steps" in err
    for place, said in ((tmp_path, "is a folder"), (tmp_path / "none" / "x.npz", "is in a folder that is not there")):
        code, _, err = _run(capsys, *command, place)
        assert _one_sentence(code, err)
        assert said in err


def test_ablate_writes_what_removing_edges_does_and_goes_on_where_it_stopped(
    tmp_path: Path, zoo: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [Sample("b", (1, 4, 5, 6, 7), 2, 3), Sample("a", (1, 9, 8, 7), 3, 1)]
    write_samples(tmp_path / "s.jsonl", samples)
    names, out = ["m2->a5<q>", "input->m0", "m3->logits"], tmp_path / "out.npz"
    (tmp_path / "edges.txt").write_text("\n".join(names[1:]) + "\n")
    command = ("ablate", zoo / "base", "--sequences", tmp_path / "s.jsonl", "--out", out, "--loss", "margin")
    command = (*command, "--batch-size", 2, "--edges", names[0], tmp_path / "edges.txt")
    attributor = Attributor(load_model(find(str(zoo / "base")), torch.device("cpu"), torch.float32))
    expected = effects(attributor, samples, map(attributor.graph.number, names), "margin")
    with monkeypatch.context() as patched:
        patched.setattr(Predictions, "losses", _interrupted_at(4))
        code, _, err = _run(capsys, *command)
        assert code != 0
        assert err == "Stopped; what was finished is kept.\n"
    assert not out.exists()
    (begun,) = tmp_path.glob(".out.npz.*.unfinished")
    assert np.isnan(np.load(begun)).any(0).tolist() == [True, False, True]
    code, said, _ = _run(capsys, *command)
    assert code == 0
    assert said.rstrip().endswith("2 samples, 3 edges, cpu, torch.float32, margin as loss")
    with np.load(out) as file:
        assert set(file.files) == {"effects", "edges", "loss", "ids", "graph", "method"}
    found = read_effects(out)
    assert (found.edges, found.ids) == (tuple(names), ("b", "a"))
    np.testing.assert_allclose(found.effects, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.loss, loss_without(attributor, samples, [], "margin"), rtol=1e-5)
    assert not list(tmp_path.glob(".*"))
    for wrong, word in (("m5->a2<q>", "no edge 'm5->a2<q>'"), ("nothing.txt", "neither an edge nor a file")):
        code, _, err = _run(capsys, *command[:-2], wrong)
        assert _one_sentence(code, err)
        assert word in err


def _interrupted_at(call: int) -> Callable:
    """As the losses are, until someone presses the keys."""
    losses, calls = Predictions.losses, count(1)

    def measured(said: Predictions, loss: Loss = "nll") -> torch.Tensor:
        if next(calls) == call:
            raise KeyboardInterrupt
        return losses(said, loss)

    return measured


@pytest.mark.parametrize(
    "change",
    [
        {"input_ids": [1, 5, 99, 13, 4, 14, 3, 7, 15]},
        {"answer_length": 0},
        {"answer_length": 4},
        {"input_ids": [1] * 90, "answer_start": 80},
    ],
)
def test_bad_sequences_are_one_sentence_and_leave_no_file(
    tmp_path: Path, zoo: Path, capsys: pytest.CaptureFixture, change: dict
) -> None:
    sequences = _sequences(tmp_path / "s.jsonl", **change)
    out = tmp_path / "out.npz"
    code, _, err = _run(capsys, "attribute", zoo / "base", "--sequences", sequences, "--out", out)
    assert _one_sentence(code, err), err
    assert [p.name for p in tmp_path.iterdir()] == ["s.jsonl"]


def test_bad_models_are_one_sentence(tmp_path: Path, zoo: Path, capsys: pytest.CaptureFixture) -> None:
    sequences = _sequences(tmp_path / "s.jsonl")
    truncated, empty, odd, partial = (tmp_path / name for name in ("truncated", "empty", "odd", "partial"))
    for folder in (truncated, odd, partial):
        shutil.copytree(zoo / "base", folder)
    weights = (truncated / "model.safetensors").read_bytes()
    (truncated / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    (odd / "config.json").write_text("{")
    config = json.loads((partial / "config.json").read_text())
    (partial / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    empty.mkdir()
    for model, said in (
        (truncated, "cannot be read"),
        (odd, "config.json"),
        (partial, "lacks"),
        (empty, "no weights in safetensors"),
        (tmp_path / "none", "There is no folder"),
        ("nobody/nothing", "hub"),
    ):
        code, _, err = _run(capsys, "attribute", model, "--sequences", sequences, "--out", tmp_path / "o.npz")
        assert _one_sentence(code, err), err
        assert said in err
        assert not (tmp_path / "o.npz").exists()


def test_a_missing_sequences_file_a_missing_folder_and_a_missing_gpu_are_one_sentence(
    tmp_path: Path, zoo: Path, capsys: pytest.CaptureFixture
) -> None:
    sequences = _sequences(tmp_path / "s.jsonl")
    for arguments in (
        ("--sequences", tmp_path / "none", "--out", tmp_path / "o.npz"),
        ("--sequences", sequences, "--out", tmp_path / "no" / "such" / "o.npz"),
        ("--sequences", sequences, "--out", tmp_path / "o.npz", "--batch-size", "0"),
    ):
        code, _, err = _run(capsys, "attribute", zoo / "base", *arguments)
        assert _one_sentence(code, err), err


def test_batch_size_does_not_matter(tmp_path: Path, zoo: Path, capsys: pytest.CaptureFixture) -> None:
    write_samples(tmp_path / "s.jsonl", [Sample(f"{i}", (1, *range(4, 8 + i % 3), 14, 3, 9), 4, 2) for i in range(9)])
    results = []
    for size in ("1", "4", "auto"):
        out = tmp_path / f"{size}.npz"
        arguments = ("--sequences", tmp_path / "s.jsonl", "--out", out, "--batch-size", size)
        assert _run(capsys, "attribute", zoo / "base", *arguments)[0] == 0
        results.append(read_scores(out).matrix())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(results[0], results[2], rtol=1e-4, atol=2e-5)


def _scores(seed: int) -> Scores:
    from probing.graph import graph_of

    graph = graph_of(1)
    values = np.random.default_rng(seed).normal(size=(6, *graph.mask.shape)) * graph.mask
    return Scores(graph, tuple("abcdef"), graph.to_edges(values.astype(np.float32)), np.ones(6, np.float32))


def test_compare_prints_a_table_and_the_documented_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, seed in (("base", 0), ("tuned", 1)):
        write_scores(tmp_path / f"{name}.npz", _scores(seed))
    files = (tmp_path / "base.npz", tmp_path / "tuned.npz")
    code, out, _ = _run(capsys, "compare", *files)
    assert code == 0
    assert "activation intensity" in out
    code, out, _ = _run(capsys, "compare", *files, "--json", "--bins", "20")
    result = json.loads(out)
    intensity = result["metrics"]["activation_intensity"]
    assert intensity["base"] == pytest.approx(np.abs(_scores(0).matrix()).mean())
    assert intensity["ci_low"] <= intensity["difference"] <= intensity["ci_high"]
    assert result["definition"]["bins"] == 20


def test_compare_refuses_what_is_no_file_of_scores(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    good = tmp_path / "good.npz"
    write_scores(good, _scores(0))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "cut.npz").write_bytes(good.read_bytes()[:200])
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", scores=np.array([{"a": 1}], dtype=object))
    for name in ("none.npz", "text.npz", "cut.npz", "other.npz", "pickle.npz"):
        code, _, err = _run(capsys, "compare", good, tmp_path / name)
        assert _one_sentence(code, err), err


def test_pairs_lists_the_shipped_ones(capsys: pytest.CaptureFixture) -> None:
    code, out, _ = _run(capsys, "pairs")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "grpo", "ppo", "dpo", "sft-more", "seed", "seed3", "seed-2-3", "grpo-seed2", "smollm2-grpo", "smollm2-dpo",
        "deepseek-math", "mistral", "distilled-qwen", "qwen-dpo",
    ]  # fmt: skip
    assert json.loads(_run(capsys, "pairs", "--json")[1])[0]["algorithm"] == "GRPO"


@pytest.mark.parametrize(
    "arguments",
    [("probe", "nope"), ("probe", "grpo", "--questions", "nope"), ("probe", "grpo", "--alpha", "7"), ("nonsense",), ()],
)
def test_wrong_words_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, arguments: tuple
) -> None:
    monkeypatch.setenv("PROBING_STORE", str(tmp_path / "store.duckdb"))
    code, _, err = _run(capsys, *arguments)
    assert _one_sentence(code, err), err


def test_store_errors_are_one_sentence_in_every_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    store = tmp_path / "store.duckdb"
    store.write_text("not a database at all" * 500)
    for command in (("probe", "grpo"), ("runs",), ("export", "x"), ("worker",)):
        code, _, err = _run(capsys, *command, "--store", store)
        assert _one_sentence(code, err), err
    code, _, err = _run(capsys, "export", "nope", "--store", tmp_path / "fresh.duckdb")
    assert _one_sentence(code, err)
    assert "There is no run 'nope'" in err


def test_probe_works_while_another_process_has_the_store_and_export_gives_the_same_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBING_PAIRS", str(small_registry(tmp_path)))
    path = tmp_path / "store.duckdb"
    owner = open_store(path)  # as the dashboard would
    command = ["probe", "small", "--alpha", "0.3", "--samples", "20", "--store", str(path)]
    run = subprocess.run([sys.executable, "-m", "probing", *command], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("α 0.3: intensity")
    assert run.stderr == ""
    key = str(owner.runs.table()["run_key"][0])
    expected = owner.runs.scores(key)
    code, out, _ = _run(capsys, "runs", "--store", path)
    assert code == 0
    assert key in out
    assert "20/20 samples  finished" in out
    for form in ("npz", "parquet", "csv"):
        target = tmp_path / f"run.{form}"
        assert _run(capsys, "export", key, "--format", form, "--out", target, "--store", path)[0] == 0
    np.testing.assert_array_equal(read_scores(tmp_path / "run.npz").edges, expected.edges)
    for table in (pd.read_parquet(tmp_path / "run.parquet"), pd.read_csv(tmp_path / "run.csv")):
        wide = table.pivot(index="question_id", columns="edge", values="score")[list(expected.graph.edges)]
        np.testing.assert_allclose(wide.to_numpy(), expected.edges, rtol=1e-6)
    owner.close()


def test_zoo_train_refuses_unknown_members(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    code, _, err = _run(capsys, "zoo", "train", "--only", "nope", "--out", tmp_path)
    assert _one_sentence(code, err), err


def test_a_job_is_left_to_a_worker_listed_and_cancelled(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "store.duckdb"
    code, out, _ = _run(capsys, "probe", "ppo", "--alpha", "0.5", "--detach", "--store", path)
    assert (code, out.split(";")[0]) == (0, "job 1")
    code, out, _ = _run(capsys, "jobs", "--store", path)
    assert out.split() == ["1", "queued", "ppo", "addition", "α", "0.5"]
    assert json.loads(_run(capsys, "jobs", "--json", "--store", path)[1])[0]["status"] == "queued"
    code, out, _ = _run(capsys, "cancel", 1, "--store", path)
    assert (code, out) == (0, "job 1 cancelled; what it has finished is kept\n")
    code, _, err = _run(capsys, "cancel", 1, "--store", path)
    assert _one_sentence(code, err)
    assert "Job 1 is cancelled already." in err
    code, _, err = _run(capsys, "cancel", 9, "--store", path)
    assert _one_sentence(code, err)


def test_scores_under_different_vocabularies_are_not_compared_unless_each_answered_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, tokenizer in (("a", "one"), ("b", "two"), ("c", "")):
        write_scores(tmp_path / f"{name}.npz", replace(_scores(0), tokenizer=tokenizer))
    code, _, err = _run(capsys, "compare", tmp_path / "a.npz", tmp_path / "b.npz")
    assert _one_sentence(code, err)
    assert "different vocabularies" in err
    few = ("--resamples", 50)
    assert _run(capsys, "compare", tmp_path / "a.npz", tmp_path / "b.npz", "--own-answers", *few)[0] == 0
    assert _run(capsys, "compare", tmp_path / "a.npz", tmp_path / "c.npz", *few)[0] == 0


@pytest.mark.parametrize("spec", ["nonsense", "{}", '{"pair": "grpo", "questions": "addition", "alphas": 1}', "[]"])
def test_a_forecast_of_what_is_no_job_is_refused(spec: str, capsys: pytest.CaptureFixture) -> None:
    code, _, err = _run(capsys, "forecast", spec)
    assert _one_sentence(code, err)
    assert "not the spec of a job" in err


def test_a_pair_of_equal_models_says_so_before_and_after_it_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, zoo: Path
) -> None:
    copy = shutil.copytree(zoo / "base", tmp_path / "copy")
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    registry = small_registry(tmp_path)
    registry.write_text(registry.read_text().replace(str(zoo / "grpo"), str(copy)))
    monkeypatch.setenv("PROBING_PAIRS", str(registry))
    note = "The two models are equal in every weight"
    few = ("probe", "small", "--alpha", "0.3", "--samples", "4", "--store", tmp_path / "store.duckdb")
    code, out, _ = _run(capsys, *few, "--dry-run")
    assert code == 0
    assert [line.partition(note)[1] for line in out.splitlines() if line.startswith("note ")] == [note]
    code, out, err = _run(capsys, *few, "--detach")
    assert (code, err.startswith(note), err.count("\n")) == (0, True, 1), "nothing is computed yet"
    code, out, err = _run(capsys, *few)
    assert code == 0
    assert err.startswith(note)
    assert note in out, "the comparison keeps it"
    assert "difference +0," in out


def test_a_job_that_follows_on_one_with_pickles_may_read_them_too(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, zoo: Path
) -> None:
    for folder, name in (("base", "base"), ("tuned", "grpo"), ("steps/step-0", "base")):
        shutil.copytree(zoo / name, tmp_path / folder)
        torch.save(load_file(tmp_path / folder / "model.safetensors"), tmp_path / folder / "pytorch_model.bin")
        (tmp_path / folder / "model.safetensors").unlink()
    registry = small_registry(tmp_path)
    text = registry.read_text().replace(str(zoo / "base"), str(tmp_path / "base"))
    registry.write_text(text.replace(str(zoo / "grpo"), str(tmp_path / "tuned")) + 'checkpoints = "steps"\n')
    monkeypatch.setenv("PROBING_PAIRS", str(registry))
    path = tmp_path / "store.duckdb"
    few = ("probe", "small", "--alpha", "0.3", "--samples", "4", "--store", path)
    code, _, err = _run(capsys, *few)
    assert _one_sentence(code, err)
    assert "pickles only" in err
    code, _, err = _run(capsys, *few, "--pickled")
    assert code == 0, err
    with closing(open_store(path)) as store:
        (row,) = store.comparisons.table().to_dict("records")
        job = follow(
            store, store.queue.submit(spec_of(ComparisonRow.of(row), timeline=True).as_json()), lambda *_: None
        )
        assert (job.status, job.message) == ("done", "")
        assert set(store.comparisons.steps(row["comparison_key"])["side"]) == {"step-000000"}
