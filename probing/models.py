"""Who answers: loading a checkpoint onto a device in a dtype, and letting it answer.

Weights are read from safetensors and GGUF, pickles only where one says so, and no code of a checkpoint is run.
"""

import copy
import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers.decoders import DecodeStream
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.utils import logging as transformers_logging

from probing.adapters import with_adapter
from probing.checkpoints import Checkpoint
from probing.errors import ModelError, in_short
from probing.fitting import batch_that_fits, cache_bytes, free_bytes, shape_of
from probing.graph import MOST_LAYERS
from probing.pairs import Shape
from probing.vetting import vet_config, vet_report, vet_tokenizer, vet_tokenizer_files

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()

_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, EOFError, SafetensorError,
    struct.error, pickle.UnpicklingError,
)  # fmt: skip
"""What transformers raises over files that are damaged, cut short or of another kind."""

DTYPES = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64,
}  # fmt: skip


def pick_device(wanted: str = "auto") -> torch.device:
    """`auto` is the GPU when there is one.

    Raises:
        ModelError: CUDA was asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError("PyTorch finds no CUDA device on this machine.", "Use --device cpu or --device auto.")
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def own_dtype(checkpoint: Checkpoint) -> str:
    """The dtype of a checkpoint's weights, by its config; float32 where that does not say, or says something else.

    Raises:
        ModelError: the config cannot be read.
    """
    said = str(getattr(_config(checkpoint), "dtype", None)).removeprefix("torch.")
    return said if said in DTYPES else "float32"


def _config(checkpoint: Checkpoint) -> Any:
    """A copy of the checkpoint's config."""
    return copy.deepcopy(_read_config(checkpoint))


@lru_cache(maxsize=4)
def _read_config(checkpoint: Checkpoint) -> Any:
    """Of a GGUF file this takes seconds."""
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, **_in_one_file(checkpoint))
        vet_config(config, checkpoint.name)
    except ModelError:
        raise
    except Exception as error:  # configs check their own values, each in its own way
        raise ModelError(
            f"The config.json of {checkpoint.name} cannot be read: {in_short(error)}.",
            "Is the folder a complete model?",
        ) from error
    layers = getattr(config, "num_hidden_layers", 0)
    if not isinstance(layers, int) or layers > MOST_LAYERS:
        raise ModelError(f"The config.json of {checkpoint.name} asks for {layers} layers.", "Is it damaged?")
    return config


def describe(checkpoint: Checkpoint) -> Shape:
    """How large a model is, from its config alone.

    Raises:
        ModelError: the config cannot be read, or its type is unknown to transformers.
    """
    config = _config(checkpoint)
    try:
        with torch.device("meta"):
            model = _loader(config).from_config(config, trust_remote_code=False)
    except _UNREADABLE as error:
        raise ModelError(
            f"The config.json of {checkpoint.name} does not describe a language model: {in_short(error)}.",
            "Is the folder a complete model?",
        ) from error
    return shape_of(config, model.num_parameters())


def placement(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> str | None:
    """Where the weights can go: None for `device` alone, `auto` for all GPUs together.

    Raises:
        ModelError: there is not enough memory; the sentence says how much is needed.
    """
    needed = describe(checkpoint).parameters * dtype.itemsize
    free = free_bytes(device)
    if needed < free:
        return None
    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())] if device.type == "cuda" else []
    together = sum(map(free_bytes, gpus))
    if len(gpus) > 1 and needed < together:
        return "auto"
    raise ModelError(
        f"The weights of {checkpoint.name} need {needed / 1e9:.1f} GB as {str(dtype).removeprefix('torch.')}, and "
        f"{max(free, together) / 1e9:.1f} GB are free.",
        "Close other programs, try --dtype bfloat16, or use a machine with more memory.",
    )


def load_model(
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    attention: str = "sdpa",
    device_map: str | dict[str, Any] | None = None,
) -> PreTrainedModel:
    """The model in evaluation mode with frozen parameters, on `device` or spread as a `device_map` says.

    Raises:
        ModelError: files are damaged or quantised, weights are missing from them or have no place in the model, the
            type is unknown to transformers, or memory does not suffice.
    """
    config = _config(checkpoint)
    device_map = device_map or placement(checkpoint, device, dtype)
    _take_float32_for_float32()
    try:
        model, report = _loader(config).from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention_for(checkpoint, attention),
            use_safetensors=None if checkpoint.pickled or checkpoint.gguf else True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported then, and refused below
            device_map=device_map,
            **_in_one_file(checkpoint),
        )
    except _UNREADABLE as error:
        raise ModelError(
            f"The weights of {checkpoint.name} cannot be read: {in_short(error)}.", "Was a file cut short or mixed up?"
        ) from error
    vet_report(report, checkpoint.name)
    if any(weights.is_meta for weights in model.parameters()):
        raise ModelError(
            f"The weights of {checkpoint.name} do not all fit on this machine's GPUs beside each other.",
            "Close other programs, try --dtype bfloat16, or use a machine with more memory.",
        )
    if checkpoint.adapter is not None:
        model = with_adapter(model, checkpoint)
    model = model.requires_grad_(False).eval()
    return model if device_map else model.to(device)


def _take_float32_for_float32() -> None:
    """Have GPUs multiply float32 as such, whatever the surroundings ask for: TF32 has 10 bits where it has 23."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def _loader(config: Any) -> Any:
    """What loads a model of that config; a vision-language model whole, to be used on text alone.

    So every tensor of its checkpoint has a place, those of its vision tower too, and one that has none can be told.
    """
    wrapped = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if wrapped else AutoModelForCausalLM


def _in_one_file(checkpoint: Checkpoint) -> dict[str, str]:
    """How transformers is told of a GGUF file; its weights are dequantised."""
    return {"gguf_file": checkpoint.gguf} if checkpoint.gguf else {}


def attention_for(checkpoint: Checkpoint, wanted: str) -> str:
    """`wanted`, or `eager` for a model that knows no other (Gemma 2, which caps its attention's logits)."""
    config = _config(checkpoint)
    kind = _loader(config)._model_mapping.get(type(config), None)
    return "eager" if kind is not None and not getattr(kind, "_supports_sdpa", True) else wanted


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """The tokenizer that came with the checkpoint.

    Raises:
        ModelError: there is none, it cannot be read, or it writes much more than it reads.
    """
    folder = checkpoint.own_tokenizer or checkpoint.folder
    inside = {} if checkpoint.own_tokenizer else _in_one_file(checkpoint)
    try:
        if not inside:
            vet_tokenizer_files(folder, checkpoint.name)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **inside)
        vet_tokenizer(tokenizer, checkpoint.name)
        return tokenizer
    except ModelError:
        raise
    except Exception as error:  # tokenizers raises bare exceptions for damaged files
        raise ModelError(
            f"The tokenizer of {checkpoint.name} cannot be read: {in_short(error)}.", "Is tokenizer.json complete?"
        ) from error


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Identity of what a tokenizer's ids stand for."""
    content = json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def tokenizer_note(base: PreTrainedTokenizerBase, tuned: PreTrainedTokenizerBase) -> str | None:
    """A sentence on what differs between a pair's tokenizers and templates; None if nothing that matters does."""
    ours, theirs = base.get_vocab(), tuned.get_vocab()
    differing = len(ours.items() ^ theirs.items())
    special = {kind: (getattr(base, kind), getattr(tuned, kind)) for kind in ("bos_token", "eos_token")}
    found = [
        *([f"{differing} entr{'y' if differing == 1 else 'ies'} of their vocabularies"] if differing else []),
        *(f"their {kind.replace('_', ' ')} ({a} and {b})" for kind, (a, b) in special.items() if a != b),
        *(["their chat templates"] if base.chat_template != tuned.chat_template else []),
    ]
    if not found:
        return None
    return (
        f"The two models' tokenizers differ in {', '.join(found)}. Each model is scored on its own answers in its own "
        "tokens, so edges are compared here and tokens are not."
    )


def use_threads_for(model: PreTrainedModel, most: int | None = None) -> None:
    """Give a small model one CPU thread: for it, threads that wait for each other cost more than they help. A large one
    gets as many as there are cores, or `most`."""
    if model.device.type == "cpu":
        torch.set_num_threads(1 if model.num_parameters() < 20_000_000 else most or os.cpu_count() or 1)


def answers_at_once(model: PreTrainedModel, prompts: Iterable[Sequence[int]], max_new_tokens: int) -> int:
    """How many of the answers to some prompts, given as tokens, fit into the device's memory at once."""
    longest = max(map(len, prompts), default=0) + max_new_tokens
    each = cache_bytes(shape_of(model.config, 0), longest, model.dtype.itemsize)
    return batch_that_fits(free_bytes(model.device), each)


@torch.inference_mode()
def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: str | None = None,
    at_each_token: Callable[[], None] = lambda: None,
) -> list[tuple[tuple[int, ...], str]]:
    """Greedy answers to one batch of prompts' tokens: the tokens of each, with the end token if reached, and its text.

    An answer ends with the model's end token, with the token that completes the text `stop`, or at `max_new_tokens`.
    Of the decoding that a checkpoint suggests only its end tokens count: a penalty on repetition, say, would make the
    answer another than the model's most likely one. Prompts are padded on the left, which is right for generation and
    wrong for anything else. What `at_each_token` raises ends the generation.
    """
    ends = end_tokens(model, tokenizer)

    def said(tokens: torch.Tensor, _scores: torch.Tensor, **_rest: Any) -> torch.Tensor:
        at_each_token()
        new = tokens[:, width:]
        done = [_stops(row, tokenizer, stop) for row in new.tolist()] if stop else [False] * len(new)
        return torch.tensor(done, device=new.device)

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends, default=0)
    width = max(map(len, prompts))
    tokens = torch.tensor([[pad] * (width - len(row)) + [*row] for row in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=model.device)
    model.generation_config = GenerationConfig(eos_token_id=sorted(ends) or None, pad_token_id=pad)
    generated = model.generate(
        input_ids=tokens,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        stopping_criteria=StoppingCriteriaList([said]),
    )
    answers = []
    for new in generated[:, width:].tolist():
        kept = tuple(new[: _length(new, ends, tokenizer, stop)])
        answers.append((kept, tokenizer.decode(kept, skip_special_tokens=True)))
    return answers


def ended(
    tokens: Sequence[int],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
    stop: str | None = None,
) -> tuple[tuple[int, ...], str] | None:
    """What `answer` gives, were these the tokens that a model gives; None if it would go on after them."""
    length = _length(tokens[:max_new_tokens], end_tokens(model, tokenizer), tokenizer, stop)
    if length is None and len(tokens) < max_new_tokens:
        return None
    kept = tuple(tokens[: length or max_new_tokens])
    return kept, tokenizer.decode(kept, skip_special_tokens=True)


def _length(
    tokens: Sequence[int], ends: Collection[int], tokenizer: PreTrainedTokenizerBase, stop: str | None
) -> int | None:
    """How many tokens of an answer there are up to where it ends; None if it does not."""
    stopped = (i for i, token in enumerate(tokens, 1) if token in ends or _stops(tokens[:i], tokenizer, stop))
    return next(stopped, None)


def _stops(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, stop: str | None) -> bool:
    """Whether the last of some tokens completes the text to stop at, which has no more tokens than bytes."""
    return stop is not None and stop in tokenizer.decode(list(tokens[-len(stop.encode()) - 1 :]))


def pieces(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> tuple[str, ...]:
    """The text that each token adds; a character spread over several tokens stands with its last one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tuple(tokenizer.decode([token]) for token in tokens)
    stream = DecodeStream(skip_special_tokens=False)
    return tuple(stream.step(backend, token) or "" for token in tokens)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that end an answer: the model's own, and its tokenizer's."""
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return {token for token in (*several, tokenizer.eos_token_id) if token is not None}
