"""What TransformerLens 4.3.0 says of two small models: `python -m tests.transformer_lens` in an environment that has it
writes it to `transformer_lens.json`, with which tests compare, and which needs it no more."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel

from probing.sequences import Sample

NUMBERS = Path(__file__).with_suffix(".json")

SAMPLE = Sample("s", (3, 1, 4, 1, 5, 9, 2), 4, 2, counterpart=(2, 7, 1, 8, 2, 8, 1))

MODELS: dict[str, tuple[type, PretrainedConfig]] = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=11, n_embd=8, n_inner=12, n_layer=2, n_head=2, n_positions=16)),
    "llama": (
        LlamaForCausalLM,
        LlamaConfig(
            vocab_size=11, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=4, max_position_embeddings=16,
        ),
    ),
}  # fmt: skip


def made(name: str) -> PreTrainedModel:
    """A model whose weights are a formula's, so that it is the same everywhere."""
    make, config = MODELS[name]
    config._attn_implementation = "eager"
    model = make(config)
    with torch.no_grad():
        for number, (label, parameter) in enumerate(model.named_parameters()):
            wave = torch.sin(1.7 * torch.arange(parameter.numel(), dtype=torch.float64) ** 1.1 + number)
            norm = parameter.dim() == 1 and "weight" in label
            parameter.copy_((0.8 * wave + norm).reshape(parameter.shape))
    return model.to(torch.float64).eval()


def loss(logits: torch.Tensor) -> torch.Tensor:
    """Ours of the sample."""
    places = torch.arange(SAMPLE.answer_start - 1, SAMPLE.answer_start - 1 + SAMPLE.answer_length)
    return -logits[0].log_softmax(-1)[places, torch.tensor(SAMPLE.scored)].mean()


def _zero(bridge: Any, layers: int, heads: int, groups: int) -> list[list[Any]]:
    """Minus what each writer's hook has, times the gradient at each reader's after it: edges by hooks and heads.

    Written from TransformerLens's names alone, in the order in which its layers read and write.
    """
    writers: list[tuple[str, int | None]] = [("blocks.0.hook_resid_pre", None)]
    edges = []
    for layer in range(layers):
        block = f"blocks.{layer}"
        for kind, count in (("q", heads), ("k", groups), ("v", groups)):
            edges += [(w, (f"{block}.hook_{kind}_input", head)) for head in range(count) for w in writers]
        writers += [(f"{block}.attn.hook_result", head) for head in range(heads)]
        writers += [(f"{block}.attn.b_O", None)] if bridge.blocks[layer].attn.b_O is not None else []
        edges += [(w, (f"{block}.hook_mlp_in", None)) for w in writers]
        writers.append((f"{block}.hook_mlp_out", None))
    edges += [(w, (f"blocks.{layers - 1}.hook_resid_post", None)) for w in writers]
    live, written, gradient = {}, {}, {}

    def keep(name: str, value: torch.Tensor, hook: Any) -> None:
        live[name], written[name] = value, value.detach().clone()

    def take(name: str, value: torch.Tensor, hook: Any) -> None:
        gradient[name] = value.detach().clone()

    names = {name for edge in edges for name, _ in edge if not name.endswith("b_O")}
    backward = {reader for _, (reader, _) in edges}
    with bridge.hooks([(n, partial(keep, n)) for n in names], [(n, partial(take, n)) for n in backward]):
        metric = loss(bridge(torch.tensor([SAMPLE.fed])))
        torch.autograd.grad(metric, [live["blocks.0.hook_resid_pre"]])
    for layer in range(layers):
        written[f"blocks.{layer}.attn.b_O"] = bridge.blocks[layer].attn.b_O

    def at(values: dict[str, torch.Tensor], name: str, head: int | None) -> torch.Tensor:
        return values[name] if head is None else values[name][:, :, head]

    return [[*w, *r, -(at(written, *w) * at(gradient, *r)).sum().item()] for w, r in edges]


def _edge_scores(bridge: Any) -> list[list[Any]]:
    """What `attribution_patch` finds from our text towards its counterpart: an edge's nodes, its score by position."""
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

    towards = torch.tensor([SAMPLE.counterpart[: len(SAMPLE.fed)]])
    config = EdgeAttributionConfig(granularity="edge")
    found = attribution_patch(bridge, towards, torch.tensor([SAMPLE.fed]), loss, config).edge_scores
    rows: dict[str, list[float]] = {}
    for (writer, reader), score in found.items():
        nodes = [[node.kind, node.layer, node.head] for node in (writer, reader)]
        rows.setdefault(json.dumps(nodes), []).append(score)
    return [[*json.loads(nodes), scores] for nodes, scores in rows.items()]


def main() -> None:
    """Run both models under TransformerLens."""
    from tempfile import TemporaryDirectory

    from tokenizers import Tokenizer, models
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

    told: dict[str, dict[str, Any]] = {}
    words = Tokenizer(models.WordLevel({str(token): token for token in range(11)}, unk_token="0"))
    for name in MODELS:
        with TemporaryDirectory() as folder:
            made(name).save_pretrained(folder)
            PreTrainedTokenizerFast(
                tokenizer_object=words, unk_token="0", bos_token="1", pad_token="1"
            ).save_pretrained(folder)
            bridge = TransformerBridge.boot_transformers(folder, device="cpu", dtype=torch.float64).eval()
        heads = bridge.cfg.n_heads
        groups = bridge.cfg.n_key_value_heads or heads
        if groups == heads:
            told[name] = {"edge_scores": _edge_scores(bridge)}
        for switch in (bridge.set_use_attn_result, bridge.set_use_split_qkv_input, bridge.set_use_hook_mlp_in):
            switch(True)
        told.setdefault(name, {})["zero"] = _zero(bridge, bridge.cfg.n_layers, heads, groups)
    lines = [f'"{name}": {{{_lines(tables)}}}' for name, tables in told.items()]
    NUMBERS.write_text("{" + ",\n".join(lines) + "}\n")


def _lines(tables: dict[str, list[list[Any]]]) -> str:
    """Tables with a line for each row, and numbers to nine digits."""
    rows = {name: ",\n".join(json.dumps(_rounded(row)) for row in table) for name, table in tables.items()}
    return ",\n".join(f'"{name}": [\n{text}]' for name, text in rows.items())


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
