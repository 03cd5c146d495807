"""The untrained member: a character tokenizer and a small Llama, and how members are kept on disk."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, TokenizersBackend

from probing.zoo.recipes import ARCHITECTURE

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
VOCABULARY = [PAD, BOS, EOS, *"0123456789", "+", "=", " "]


def new_tokenizer() -> PreTrainedTokenizerBase:
    """One token a character, a beginning-of-sequence token before every text, and nothing else."""
    ids = {token: i for i, token in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(ids, unk_token=PAD))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, ids[BOS])])
    return TokenizersBackend(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=PAD,
        padding_side="left",
        model_max_length=ARCHITECTURE["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
    )


def new_model(seed: int, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A Llama of the zoo's shape with weights drawn from `seed`."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **ARCHITECTURE,
    )
    return LlamaForCausalLM(config)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a copy of the weights as bfloat16 safetensors, with config and tokenizer, to `folder`."""
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    copy = copy.to(torch.bfloat16)
    copy.config.use_cache = True
    copy.config.dtype = torch.bfloat16
    copy.generation_config.max_length = None
    copy.generation_config.use_cache = True
    copy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def bytes_of(folder: Path) -> int:
    """Size of the files of a member."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
