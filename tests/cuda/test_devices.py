"""A model spread over several devices, and a GPU that workers have to themselves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn
from transformers import PreTrainedModel

from probing.ablation import effects, loss_without
from probing.attribution import Attributor, find_references
from probing.checkpoints import find
from probing.errors import ModelError
from probing.extraction import random_circuits
from probing.faithfulness import run_circuits
from probing.graph import Granularity
from probing.jobs.loading import gpu_lock, wait_for_one
from probing.jobs.worker import follow
from probing.method import Method
from probing.models import answer, load_model, load_tokenizer
from probing.pairs import load_registry
from probing.scoring import attribute
from probing.store import open_store
from probing.transplant.pairing import Pairing
from probing.transplant.patching import loss_of, patched_loss
from tests import small
from tests.cuda.conftest import Note
from tests.cuda.here import DEVICE, FLOAT32, WANTED, devices, only_on_a_gpu, relative
from tests.tiny import TINY, samples_with_counterparts, tiny

pytestmark = pytest.mark.cuda


def spread(model: PreTrainedModel) -> PreTrainedModel:
    """Share a model's layers out among the devices, as accelerate does where none is the CPU.

    Its own placement takes "cpu" for a place to keep weights until a GPU needs them, which is another thing.
    """
    layers = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
    where = devices()
    first, last = where[0], where[-1]
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    model.to(first if tied else last)
    model.get_input_embeddings().to(first)
    for place, layer in enumerate(layers):
        device = where[place * len(where) // len(layers)]
        layer.to(device)
        add_hook_to_module(layer, AlignDevicesHook(device))
    for module in model.modules():
        own = [tensor.device for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))]
        if own and module is not model and not hasattr(module, "_hf_hook"):
            add_hook_to_module(module, AlignDevicesHook(own[0]))
    add_hook_to_module(model, AlignDevicesHook(first, io_same_device=True))
    return model


def _both(name: str, granularity: Granularity, seed: int = 0) -> tuple[Attributor, Attributor]:
    """Spread, and on the CPU."""
    attention = "eager" if name == "gemma2" else "sdpa"
    whole, parts = (tiny(name, torch.float32, attention, seed) for _ in range(2))
    return Attributor(spread(parts), granularity), Attributor(whole, granularity)


@pytest.mark.parametrize("granularity", ["projections", "heads"])
@pytest.mark.parametrize("name", TINY)
def test_a_spread_model_is_scored_cut_and_run_as_it_is_on_one_device(
    name: str, granularity: Granularity, note: Note
) -> None:
    samples, both, rng = samples_with_counterparts(3, seed=2), _both(name, granularity), np.random.default_rng(0)
    graph, worst = both[1].graph, 0.0
    for method in (
        Method(granularity),
        Method(granularity, "norm-exact", "mean"),
        Method(granularity, "eap-ig", "patch"),
    ):
        worst = max(worst, relative(*(attribute(one, samples, method=method).edges for one in both)))
    edges = np.sort(rng.choice(graph.size, 40, replace=False))
    half = rng.permutation(graph.size)[: graph.size // 2]
    circuits = random_circuits(graph, [graph.size // 2], rng)
    for reference in ("mean", "patch"):
        given = [find_references(one, reference, samples) for one in both]
        worst = max(
            worst,
            relative(*(effects(a, samples, edges, references=b) for a, b in zip(both, given, strict=True))),
            relative(*(loss_without(a, samples, half, references=b) for a, b in zip(both, given, strict=True))),
            relative(*(run_circuits(a, samples, circuits, b)["loss"] for a, b in zip(both, given, strict=True))),
        )
    over = " + ".join(map(str, devices()))
    note("several devices", f"{name}, {granularity}, over {over}", difference=worst, allowed=FLOAT32)
    assert worst < FLOAT32


@pytest.mark.parametrize("granularity", ["projections", "heads"])
def test_parts_of_spread_models_are_exchanged(granularity: Granularity) -> None:
    samples = samples_with_counterparts(3, seed=6)
    pairs = list(zip(_both("qwen3", granularity), _both("qwen3", granularity, seed=1), strict=True))
    found = []
    for base, tuned in pairs:
        pairing = Pairing(base, tuned)
        part = next(name for name in pairing.parts if name.startswith("a1"))
        with pairing.exchanged("into-base", [part]) as host:
            weights = loss_of(host, samples)
        found.append((weights, patched_loss(base, tuned, [base.architecture.graph.writers[3]], samples)))
    (here, patched_here), (cpu, patched_cpu) = found
    assert relative(here, cpu) < FLOAT32
    assert relative(patched_here, patched_cpu) < FLOAT32


@pytest.mark.skipif(WANTED == "pretend", reason="accelerate knows no such device")
def test_placement_by_a_map_is_the_model_itself() -> None:
    base = find(load_registry().pair("grpo").base)
    several = len({device for device in devices() if device.type == "cuda"}) > 1
    model = load_model(base, DEVICE, torch.float32, device_map="balanced" if several else {"": str(DEVICE)})
    assert not several or len({weights.device for weights in model.parameters()}) > 1
    samples = [replace(sample, counterpart=None) for sample in samples_with_counterparts(3, seed=3)]
    samples = [replace(one, input_ids=tuple(token % 16 for token in one.input_ids)) for one in samples]
    whole = load_model(base, torch.device("cpu"), torch.float32)
    assert relative(*(attribute(Attributor(one), samples).edges for one in (model, whole))) < FLOAT32
    tokenizer = load_tokenizer(base)
    prompts = [tokenizer("12+34=")["input_ids"]]
    assert answer(model, tokenizer, prompts, 12) == answer(whole, tokenizer, prompts, 12)


@only_on_a_gpu
def test_weights_that_are_put_off_to_the_cpu_are_refused() -> None:
    layers = {f"model.layers.{i}": "cpu" if i > 3 else 0 for i in range(6)}
    ends = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"), 0)
    with pytest.raises(ModelError, match="do not all fit"):
        load_model(find(load_registry().pair("grpo").base), DEVICE, torch.float32, device_map=layers | ends)


@only_on_a_gpu
def test_a_worker_waits_while_others_have_all_gpus(tmp_path: Path) -> None:
    locks = [gpu_lock(torch.device("cuda", place)) for place in range(torch.cuda.device_count())]
    others = [wait_for_one([lock], lambda stage, done, total: None)[1] for lock in locks]
    store = open_store(tmp_path / "store.duckdb")
    job = store.queue.submit(replace(small.SPEC, pair="grpo", questions="addition", device="cuda").as_json())

    def stop_when_it_waits(stage: str, done: int, total: int) -> None:
        if stage == "waiting for the GPU":
            store.queue.end(job, "cancelled", "Cancelled.")

    assert follow(store, job, stop_when_it_waits).status == "cancelled"
    for other in others:
        other.close()
    store.close()
