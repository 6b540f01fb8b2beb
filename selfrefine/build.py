"""Small models of standard Hugging Face classes, made from a specification and trained from scratch.

Vision-language models, a language model (`llama`), and a masked-diffusion one (`masked_llama`: the same class, looking
both ways).

They are real members of their class: `from_pretrained`, PEFT, TRL and vLLM treat them like their large relatives.
The tokenizer is a byte-level BPE learnt from the texts the model will read, so no text is ever unknown to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# ChatML; an image part becomes the text its processor expands to one token per patch.
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As LLaVA-1.5 is prompted: contents are parts, images come first, and nothing is written at the end of a turn.
_VICUNA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'] | upper + ': ' }}{% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


MASK_TOKEN = "<|mask|>"
"""What stands for a hidden position in a tokenizer that is made, or completed, here."""


@dataclass(frozen=True, slots=True)
class _Chat:
    """How a class of models is talked to. `begin`: what its tokenizer puts before every text, if anything."""

    template: str
    pad: str
    end: str
    begin: str | None
    other: tuple[str, ...]
    words: tuple[str, ...]


def _chatml(*other: str) -> _Chat:
    words = ("system\n", "user\n", "assistant\n")
    return _Chat(_CHATML, "<|endoftext|>", "<|im_end|>", begin=None, other=("<|im_start|>", *other), words=words)


_CHATS = {
    "qwen2_5_vl": _chatml("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"),
    "llama": _chatml(),
    "masked_llama": _chatml(MASK_TOKEN),
    "llava": _Chat(_VICUNA, pad="<pad>", end="</s>", begin="<s>", other=("<image>",), words=("USER: ", " ASSISTANT:")),
}


class BuildSpec(BaseModel):
    """Sizes of a model to build. Head size is `hidden_size / heads`; vLLM's CPU attention wants 32, 64, 80, 96, …"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["qwen2_5_vl", "llava", "llama", "masked_llama"] = Field(
        "qwen2_5_vl", description="the last two read no images and ignore what describes the vision part"
    )
    hidden_size: int = Field(128, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    kv_heads: int = Field(2, ge=1)
    vision_hidden_size: int = Field(64, ge=8)
    vision_layers: int = Field(2, ge=1)
    vision_heads: int = Field(2, ge=1)
    mlp_ratio: int = Field(4, ge=1, description="width of a feed-forward layer over its hidden size, in both parts")
    image_size: int = Field(64, ge=8, description="pixels; images are resized to a square of this side")
    patch_size: int = Field(8, ge=2)
    vocab_size: int = Field(512, ge=300, description="at most; fewer where the texts give no more merges")
    max_length: int = Field(1024, ge=64, description="tokens of context")
    init_std: float = Field(
        0.02, gt=0, description="standard deviation of initial weights; small models want about 1 / sqrt(hidden_size)"
    )
    tie_word_embeddings: bool = True

    @model_validator(mode="after")
    def _divisible(self) -> BuildSpec:
        merged = 2 if self.architecture == "qwen2_5_vl" else 1
        for whole, times, part in (
            ("hidden_size", 2, "heads"),  # rotary embeddings turn pairs of numbers
            ("heads", 1, "kv_heads"),
            ("vision_hidden_size", 2, "vision_heads"),
            ("image_size", merged, "patch_size"),
        ):
            if self.architecture in ("llama", "masked_llama") and whole in ("vision_hidden_size", "image_size"):
                continue
            if getattr(self, whole) % (times * getattr(self, part)):
                size, divisor = getattr(self, part), f"{times} × {part}" if times > 1 else part
                raise ValueError(f"{whole} = {getattr(self, whole)} must be a multiple of {divisor}; {part} is {size}")
        return self


def build_model(spec: BuildSpec, texts: Iterable[str], directory: Path, seed: int) -> None:
    """Writes a randomly initialised model with tokenizer and processor to `directory` (float32 weights).

    `texts`: what the tokenizer learns its merges from. Equal arguments give equal files.
    """
    import torch

    tokenizer = _tokenizer(spec, texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _MODELS[spec.architecture](spec, tokenizer)
    model.save_pretrained(directory)
    _PROCESSORS[spec.architecture](spec, tokenizer).save_pretrained(directory)


def _tokenizer(spec: BuildSpec, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    chat = _CHATS[spec.architecture]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    begin = [chat.begin] if chat.begin else []
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        special_tokens=[chat.pad, *begin, chat.end, *chat.other],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(itertools.chain(texts, chat.words), trainer)
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"} if "<|image_pad|>" in chat.other else {}
    if MASK_TOKEN in chat.other:
        named["mask_token"] = MASK_TOKEN
    if chat.begin:
        core.post_processor = processors.TemplateProcessing(
            single=f"{chat.begin} $A", special_tokens=[(chat.begin, core.token_to_id(chat.begin))]
        )
        named["bos_token"] = chat.begin
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=chat.pad,
        eos_token=chat.end,
        additional_special_tokens=list(chat.other),
        model_max_length=spec.max_length,
        chat_template=chat.template,
        **named,
    )


def _text_config(spec: BuildSpec, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.mlp_ratio * spec.hidden_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "max_position_embeddings": spec.max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "initializer_range": spec.init_std,
    }


def _qwen2_5_vl(spec: BuildSpec, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    half = spec.hidden_size // spec.heads // 2
    # The three rotary sections (time, height, width) share half the head: a quarter and twice three eighths.
    width = 3 * half // 8
    text = _text_config(spec, tokenizer) | {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [half - 2 * width, width, width],
        }
    }
    vision = {
        "depth": spec.vision_layers,
        "hidden_size": spec.vision_hidden_size,
        "intermediate_size": spec.mlp_ratio * spec.vision_hidden_size,
        "num_heads": spec.vision_heads,
        "patch_size": spec.patch_size,
        "out_hidden_size": spec.hidden_size,
        "window_size": spec.image_size,
        "fullatt_block_indexes": list(range(spec.vision_layers)),
        "initializer_range": spec.init_std,
    }
    token = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=token("<|image_pad|>"),
            video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"),
            vision_end_token_id=token("<|vision_end|>"),
            tie_word_embeddings=spec.tie_word_embeddings,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _qwen2_5_vl_processor(spec: BuildSpec, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    pixels = {"shortest_edge": spec.image_size**2, "longest_edge": spec.image_size**2}
    common: dict[str, Any] = {"patch_size": spec.patch_size, "merge_size": 2, "size": pixels}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**common),
        video_processor=Qwen2VLVideoProcessor(**common),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )


def _llava(spec: BuildSpec, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=spec.vision_hidden_size,
        intermediate_size=spec.mlp_ratio * spec.vision_hidden_size,
        num_hidden_layers=spec.vision_layers,
        num_attention_heads=spec.vision_heads,
        image_size=spec.image_size,
        patch_size=spec.patch_size,
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=LlamaConfig(**_text_config(spec, tokenizer)),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            image_seq_length=(spec.image_size // spec.patch_size) ** 2,
            vision_feature_layer=-1,
            tie_word_embeddings=spec.tie_word_embeddings,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _llava_processor(spec: BuildSpec, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor

    side = {"height": spec.image_size, "width": spec.image_size}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": spec.image_size}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=spec.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=tokenizer.chat_template,
    )


def _llama(spec: BuildSpec, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_text_config(spec, tokenizer)))


def _masked_llama(spec: BuildSpec, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    masked = {"is_causal": False, "mask_token_id": tokenizer.mask_token_id}
    return LlamaForCausalLM(LlamaConfig(**_text_config(spec, tokenizer), **masked))


def _no_processor(spec: BuildSpec, tokenizer: PreTrainedTokenizerFast) -> Any:
    return tokenizer


_MODELS = {"qwen2_5_vl": _qwen2_5_vl, "llava": _llava, "llama": _llama, "masked_llama": _masked_llama}
_PROCESSORS = {
    "qwen2_5_vl": _qwen2_5_vl_processor,
    "llava": _llava_processor,
    "llama": _no_processor,
    "masked_llama": _no_processor,
}
