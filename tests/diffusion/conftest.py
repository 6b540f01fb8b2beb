"""A masked-diffusion model of one layer with a token for each letter, saved with its tokenizer."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

LETTERS = string.ascii_lowercase + ".=+ " + string.digits
TEMPLATE = "{% for m in messages %}{{ m['content'] + ('=' if m['role'] == 'user' else '<eos>') }}{% endfor %}"


@pytest.fixture(scope="session")
def masked(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("masked"), is_causal=False)


@pytest.fixture(scope="session")
def causal(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("causal"))


def save(path: Path, **config: object) -> str:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(["<pad>", "<eos>", "<mask>", *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    is_masked = config.get("is_causal") is False
    further = {"mask_token": "<mask>"} if is_masked else {}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", chat_template=TEMPLATE, **further
    )
    if is_masked:
        config["mask_token_id"] = 2
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64, eos_token_id=1, pad_token_id=0,
            bos_token_id=None, initializer_range=0.2, **config,
        )
    )  # fmt: skip
    model.save_pretrained(path)
    fast.save_pretrained(path)
    return str(path)
