"""What a checkpoint's files ask for, looked at before a library acts on it, and what came of loading them.

The libraries that load models trust a checkpoint: they fetch the kernels that a config names and run them, they leave
tensors out that they have no place for, and they let a tokenizer write as much as it likes. Here each is one sentence.
"""

import base64
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from re import compile as pattern
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from probing.errors import ModelError

MOST_GROWTH = 256
"""Letters or tokens that a tokenizer may make of one letter; those in use make a few dozen at most."""

PASSED_OVER = {
    pattern(r"(^|\.)v_head\."): "the value head of a PPO trainer, which reads the last hidden state and writes nothing",
    pattern(r"(^|\.)(attn|attention)\.(masked_)?bias$"): "the causal mask as older files keep it, a constant",
    pattern(r"(^|\.)rotary_emb\.inv_freq$"): "the angles of rotary embeddings, which follow from the config",
}
"""Tensors that a model does not need for its logits, and why. transformers itself passes over what it knows by name,
such as layers for the prediction of several tokens."""

_KERNELS = ("_attn_implementation", "_experts_implementation")

_RULES = ("normalizer", "decoder", "post_processor")
"""The parts of a tokenizer that can write more than they read."""


def vet_config(config: PretrainedConfig, name: str) -> None:
    """Make sure that a config asks for nothing but a model, and let it choose neither kernels nor files.

    Raises:
        ModelError: its weights are quantised, or it names a kernel of the hub, whose code would be run.
    """
    parts = list(_parts(config))
    for part in parts:
        for kind in _KERNELS:
            chosen = getattr(part, kind, None)
            if isinstance(chosen, str) and "/" in chosen:
                raise ModelError(
                    f"The config.json of {name} asks for the kernel {chosen} of the hub, which is code that would be "
                    "run.",
                    "Take that line out: PyTorch's own are used here.",
                )
        for key in ("quantization_config", "compression_config"):
            if (quantised := getattr(part, key, None)) is not None:
                how = quantised.get("quant_method") if isinstance(quantised, dict) else None
                raise ModelError(
                    f"The weights of {name} are quantised ({how or 'in a way that is not named'}), and edges are "
                    "scored in weights of floating point, through which gradients flow exactly.",
                    "Name the model it was made from, or dequantise it and save it again; a GGUF file is dequantised "
                    "when it is loaded.",
                )
    for part, kind in product(parts, _KERNELS):  # a config sets those within it too, so all are looked at first
        setattr(part, kind, None)
    config.transformers_weights = None  # a file of another name, which no digest would cover


def _parts(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    """A config and those within it."""
    yield config
    for value in vars(config).values():
        if isinstance(value, PretrainedConfig):
            yield from _parts(value)


def vet_report(report: dict[str, Any], name: str) -> None:
    """Make sure that a model got all its weights, and that all weights went into it.

    Raises:
        ModelError: some are missing, of another shape, or left over.
    """
    absent, other = sorted(report["missing_keys"]), sorted(key for key, *_shapes in report["mismatched_keys"])
    left = sorted(key for key in report["unexpected_keys"] if not any(known.search(key) for known in PASSED_OVER))
    found = [
        *(
            [f"holds weights in another shape than its config asks for ({len(other)}, such as {other[0]})"]
            if other
            else []
        ),
        *([f"lacks {len(absent)} of the weights that its config asks for, {absent[0]} among them"] if absent else []),
        *([f"holds weights that its config has no place for ({len(left)}, such as {left[0]})"] if left else []),
    ]
    if found:
        raise ModelError(f"{name} {', and '.join(found)}.", "Do its config.json and its weights belong together?")


def vet_tokenizer_files(folder: Path, name: str) -> None:
    """Make sure that the tokenizer described in a folder does not write much more than it reads.

    Its rules are multiplied without being tried, since even loading them applies them to its own added tokens.

    Raises:
        ModelError: some line could become more than `MOST_GROWTH` times as long, or the file is one of another name.
        ValueError, TypeError: a file is damaged.
    """
    config = folder / "tokenizer_config.json"
    if config.exists() and "fast_tokenizer_files" in json.loads(config.read_text(encoding="utf-8")):
        raise ModelError(
            f"The tokenizer_config.json of {name} names other files to read in place of tokenizer.json.",
            "Take its fast_tokenizer_files out.",
        )
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if isinstance(described, dict):
        _refuse_growth([described.get(part) for part in _RULES], name)


def vet_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """The same of a tokenizer that is loaded, from whichever files: some are made from a model of SentencePiece.

    Raises:
        ModelError: some line could become more than `MOST_GROWTH` times as long.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = [getattr(backend, part, None) for part in _RULES]
    _refuse_growth([json.loads(rule.__getstate__()) if rule is not None else None for rule in rules], name)


def _refuse_growth(rules: list[Any], name: str) -> None:
    """`rules` are described as in tokenizer.json, in the order of `_RULES`."""
    normalizer, decoder, template = rules
    copies, added = _template(template)
    if max(copies * _growth(normalizer) + added, _growth(decoder)) > MOST_GROWTH:
        raise ModelError(
            f"The tokenizer of {name} can make more than {MOST_GROWTH} letters or tokens of a single letter.",
            "Take one from a source that you trust.",
        )


def _growth(rule: Any) -> float:
    """Into how many letters one letter can turn, at most, by a rule of tokenizer.json or several in a row."""
    if not isinstance(rule, dict):
        return 1
    grown = 1.0
    for inner in [*(rule.get("normalizers") or []), *(rule.get("decoders") or [])]:
        grown *= _growth(inner)
    if "pattern" in rule:
        text = rule["pattern"].get("String") or ""
        content = len(rule.get("content") or "")
        grown *= max(1, content / len(text)) if text else 1 + content  # an expression may match between letters
    if charmap := rule.get("precompiled_charsmap"):
        grown *= _longest_in(charmap)
    return grown * (1 + len(rule.get("prepend") or ""))


def _longest_in(charmap: str) -> int:
    """The longest text that a map of SentencePiece puts in another's place: they stand behind its trie."""
    content = base64.b64decode(charmap)
    replacements = content[4 + int.from_bytes(content[:4], "little") :].split(b"\0")
    return max(1, *(len(text.decode("utf-8", "replace")) for text in replacements))


def _template(rule: Any) -> tuple[int, int]:
    """How often a template of tokenizer.json repeats a line, and how many tokens it puts around it."""
    if not isinstance(rule, dict):
        return 1, 0
    tokens = {key: len(value.get("ids") or []) for key, value in (rule.get("special_tokens") or {}).items()}
    pieces = rule.get("single") or []
    copies = max(1, sum("Sequence" in piece for piece in pieces))
    added = sum(tokens.get(piece["SpecialToken"]["id"], 1) for piece in pieces if "SpecialToken" in piece)
    for inner in rule.get("processors") or []:
        times, more = _template(inner)
        copies, added = copies * times, added + more
    return copies, added
