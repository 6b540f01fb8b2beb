"""Masked-diffusion checkpoints made from others, once and on disk: from LLaDA's own format, or from a causal model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.base import EngineError
from engines.checkpoint import load_model, load_processor
from engines.json_file import read_object
from engines.tensor_file import check_whole
from selfrefine.build import MASK_TOKEN

CAUSAL_TYPES = ("llama", "qwen2", "qwen3")
"""Classes that look both ways when their config says `is_causal: false`."""

# LLaDA is a Llama without the causal mask; what its modelling code calls things → what transformers does.
_OUTER = {
    "model.transformer.wte": "model.embed_tokens",
    "model.transformer.ln_f": "model.norm",
    "model.transformer.ff_out": "lm_head",
}
_INNER = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
}
_BLOCK = re.compile(r"model\.transformer\.blocks\.(\d+)\.(\w+)")
_SETTINGS = {
    "d_model": "hidden_size",
    "mlp_hidden_size": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "embedding_size": "vocab_size",
    "max_sequence_length": "max_position_embeddings",
    "rms_norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "weight_tying": "tie_word_embeddings",
    "mask_token_id": "mask_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "pad_token_id",
}
# Where LLaDA's code could do otherwise, a Llama could not follow.
_SUPPOSED: Mapping[str, Any] = {
    "block_type": "llama", "layer_norm_type": "rms", "activation_type": "silu", "rope": True, "alibi": False,
    "attention_layer_norm": False, "include_bias": False, "include_qkv_bias": False, "input_emb_norm": False,
    "scale_logits": False, "block_group_size": 1,
}  # fmt: skip
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".py")


def convert(source: Path, target: Path) -> str:
    """Writes a masked-diffusion model of a stock class to `target`; returns a line on what was done.

    Raises:
        EngineError: `source` is of no kind that is known, is masked already, or is not whole.
    """
    if not (source / "config.json").is_file():
        raise EngineError(f"{source}: no config.json, so this is no Hugging Face model directory")
    config = read_object(source / "config.json")
    if config.get("is_causal") is False:
        raise EngineError(f"{source}: is a masked-diffusion model already (is_causal: false)")
    kind = config.get("model_type")
    if kind == "llada":
        return convert_llada(source, target, config)
    if kind in CAUSAL_TYPES:
        return convert_causal(source, target)
    raise EngineError(f"{source}: model_type {kind!r} cannot be converted; llada, {', '.join(CAUSAL_TYPES)} can")


def renamed(key: str) -> str | None:
    """LLaDA's name of a weight → Llama's; None for a name that is not LLaDA's."""
    stem, _, ending = key.rpartition(".")
    if ending != "weight":
        return None
    if match := _BLOCK.fullmatch(stem):
        inner = _INNER.get(match[2])
        return f"model.layers.{match[1]}.{inner}.weight" if inner else None
    return f"{_OUTER[stem]}.weight" if stem in _OUTER else None


def convert_llada(source: Path, target: Path, config: Mapping[str, Any]) -> str:
    """Shard by shard, by plain renaming, and strict: each weight of a Llama of this size, once, in its shape.

    Raises `EngineError` that names a weight which is missing, unexpected or of another shape.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    made = _llama_config(source, config)
    shapes = _shapes(made)
    shards = sorted(source.glob("*.safetensors"))
    if not shards:
        raise EngineError(f"{source}: no weights (*.safetensors)")
    for shard in shards:
        check_whole(shard)
    target.mkdir(parents=True)
    where: dict[str, str] = {}
    size = 0
    for shard in shards:
        weights = {}
        with safe_open(shard, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 (no mapping)
                name = renamed(key)
                if name is None or name not in shapes:
                    raise _broken(target, f"{shard}: unexpected weight {key}")
                if name in where:
                    raise _broken(target, f"{shard}: weight {key} is there twice")
                weights[name] = opened.get_tensor(key)
                if tuple(weights[name].shape) != shapes[name]:
                    found = tuple(weights[name].shape)
                    raise _broken(target, f"{shard}: weight {key} has shape {found}, not {shapes[name]}")
                where[name] = shard.name
                size += weights[name].nbytes
        save_file(weights, target / shard.name, metadata={"format": "pt"})
    if missing := sorted(shapes.keys() - where.keys()):
        raise _broken(target, f"{source}: {len(missing)} weights are missing, {missing[0]} among them")
    if len(shards) == 1:
        (target / shards[0].name).rename(target / "model.safetensors")
    else:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    made.save_pretrained(target)
    for path in source.iterdir():
        if path.is_file() and path.name != "config.json" and not path.name.endswith(_WEIGHTS):
            shutil.copy2(path, target / path.name)
    return f"{len(where)} weights of LLaDA, renamed"


def convert_causal(source: Path, target: Path) -> str:
    """A causal model that looks both ways, and has a mask token; it has to be tuned before it is of any use.

    A token that is added starts from the mean of all others (arXiv 2410.17891 trains such models further). Raises
    `EngineError` where its weights are damaged or missing.
    """
    import torch

    tokenizer, model = load_processor(str(source)), load_model(str(source))
    if tokenizer.mask_token is None:
        known = len(tokenizer)
        tokenizer.add_special_tokens({"mask_token": MASK_TOKEN})
        if len(tokenizer) > model.config.vocab_size:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            for each in {id(e): e for e in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
                each.weight[tokenizer.mask_token_id] = each.weight[:known].float().mean(0).to(each.weight.dtype)
    model.config.is_causal = False
    model.config.mask_token_id = tokenizer.mask_token_id
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return f"{source.name}, looking both ways, with the mask token {tokenizer.mask_token}; tune it before use"


def _llama_config(source: Path, config: Mapping[str, Any]) -> Any:
    from transformers import LlamaConfig

    for key, value in _SUPPOSED.items():
        if config.get(key, value) != value:
            raise EngineError(f"{source / 'config.json'}: {key} is {config[key]!r}; only {value!r} can be converted")
    absent = [key for key in _SETTINGS if key not in config]
    if absent:
        raise EngineError(f"{source / 'config.json'}: {absent[0]} is missing, so this is no LLaDA config")
    values = {ours: config[theirs] for theirs, ours in _SETTINGS.items()}
    theta = values.pop("rope_theta")
    return LlamaConfig(
        **values,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        bos_token_id=None,
        is_causal=False,
        architectures=["LlamaForCausalLM"],
        dtype=config.get("torch_dtype", "bfloat16"),
    )


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
    import torch
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def _broken(target: Path, line: str) -> EngineError:
    shutil.rmtree(target)
    return EngineError(line)
