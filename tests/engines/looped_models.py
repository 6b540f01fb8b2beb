"""Tiny random models of several classes, and loops on them whose gates and LoRA weights are not zero."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from engines.looped.config import LoopSettings
from engines.looped.files import describe
from engines.looped.loop import LatentLoop, attach

KINDS = ("llama", "qwen2", "qwen3", "sliding", "qwen2_5_vl", "llava")
VOCABULARY = 64
_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class Low(NamedTuple):
    """LoRA as it is asked for."""

    r: int = 2
    alpha: int = 4
    dropout: float = 0.0
    target_modules: str = "all-linear"


LOW = Low()


def base(kind: str = "llama", dtype: torch.dtype = torch.float32) -> Any:
    """A model whose random weights make a difference at every layer; a freshly made one says one thing to all."""
    import transformers as tf

    torch.manual_seed(0)
    model: Any
    if kind == "llama":
        model = tf.LlamaForCausalLM(tf.LlamaConfig(**_TEXT))
    elif kind == "qwen2":
        model = tf.Qwen2ForCausalLM(tf.Qwen2Config(**_TEXT))
    elif kind == "qwen3":
        model = tf.Qwen3ForCausalLM(tf.Qwen3Config(**_TEXT, head_dim=8))
    elif kind == "sliding":  # the looped layers 2 and 3: the first sees all, the second a window
        windowed = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}
        model = tf.Qwen2ForCausalLM(tf.Qwen2Config(**_TEXT, **windowed))
    elif kind == "qwen2_5_vl":
        text = _TEXT | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
        vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
        config = tf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=60, video_token_id=61)
        model = tf.Qwen2_5_VLForConditionalGeneration(config)
    else:
        vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
        seeing = tf.CLIPVisionConfig(**vision, image_size=32, patch_size=16)
        config = tf.LlavaConfig(vision_config=seeing, text_config=tf.LlamaConfig(**_TEXT), image_token_index=60)
        model = tf.LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.15)
    return model.to(dtype).eval()


def looped(model: Any, lora: Low | None = LOW, lively: bool = True, **settings: Any) -> LatentLoop:
    """A loop on `model`. `lively`: its gates are open, each by another amount, and its LoRA weights are not zero."""
    loop = attach(model, describe(model, "somewhere/base", LoopSettings(**settings), lora))
    if lively:
        enliven(loop)
    return loop


def enliven(loop: LatentLoop, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (loop.gate_in, loop.gate_mix, *loop.trainable()["lora"]):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)


def tokens(rows: int = 3, length: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 60, (rows, length), generator=torch.Generator().manual_seed(seed))
