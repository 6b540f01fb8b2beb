"""Parameters and FLOPs by formula, held against real models of transformers and torch's own counter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from pipelines.cost.sizes import SizeUnknown, config_of_build, known, of_config
from selfrefine.build import BuildSpec, build_model
from selfrefine.training import LoraSettings

TEXT = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip
QWEN_EYE = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 72, "num_heads": 2, "patch_size": 14, "out_hidden_size": 64,
    "window_size": 56, "fullatt_block_indexes": [1],
}  # fmt: skip
CLIP_EYE = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 2, "image_size": 42, "patch_size": 14,
}  # fmt: skip
FAMILIES = {
    "llama": {"model_type": "llama", **TEXT},
    "smollm2": {"model_type": "llama", **TEXT, "tie_word_embeddings": True, "num_attention_heads": 4},
    "masked": {"model_type": "llama", **TEXT, "is_causal": False},
    "llama with biases": {"model_type": "llama", **TEXT, "attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", **TEXT},
    "qwen2": {"model_type": "qwen2", **TEXT},
    "qwen3": {"model_type": "qwen3", **TEXT, "head_dim": 32},
    "llava": {"model_type": "llava", "text_config": {"model_type": "llama", **TEXT}, "vision_config": CLIP_EYE},
    "qwen2.5-vl": {
        "model_type": "qwen2_5_vl",
        "text_config": {
            "model_type": "qwen2_5_vl_text", **TEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        "vision_config": QWEN_EYE,
    },
}  # fmt: skip


def real(config: dict[str, Any]) -> Any:
    """The model of a config, on no device."""
    kind = AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM
    made = AutoConfig.for_model(**json.loads(json.dumps(config)))
    made.tie_word_embeddings = {**config, **config.get("text_config", {})}["tie_word_embeddings"]
    with torch.device("meta"):
        return kind.from_config(made)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_real_model(family: str) -> None:
    model = real(FAMILIES[family])
    assert of_config(FAMILIES[family]).parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=1e-3)


@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"])
def test_known_model_is_as_large_as_transformers_makes_it(name: str) -> None:
    model = real(known()[name])
    assert of_config(known()[name]).parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llava-hf/llava-1.5-7b-hf", 7.063),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8.292),
        ("GSAI-ML/LLaDA-8B-Instruct", 8.016),
        ("Qwen/Qwen3-0.6B", 0.596),
        ("Qwen/Qwen3-4B", 4.022),
    ],
)
def test_known_model_is_as_large_as_its_authors_say(name: str, billions: float) -> None:
    assert of_config(known()[name]).parameters / 1e9 == pytest.approx(billions, rel=2e-3)


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "llava", "llama", "masked_llama"])
def test_model_to_build_is_as_large_as_the_one_built(architecture: Any, tmp_path: Path) -> None:
    spec = BuildSpec(architecture=architecture, vocab_size=300, hidden_size=64, heads=2, kv_heads=1)
    build_model(spec, ["one two three four five six seven eight nine ten" * 9], tmp_path, seed=0)
    written = of_config(json.loads((tmp_path / "config.json").read_text()))
    foretold = of_config(config_of_build(spec) | {"vocab_size": written.vocabulary})
    assert foretold.parameters == pytest.approx(written.parameters, rel=0.01)
    assert written.parameters * 4 == pytest.approx((tmp_path / "model.safetensors").stat().st_size, rel=0.02)


@pytest.mark.parametrize("family", ["llama", "qwen3", "llava", "qwen2.5-vl"])
def test_adapters_are_as_large_as_peft_makes_them(family: str) -> None:
    from peft import get_peft_model

    model = real(FAMILIES[family])
    adapted = get_peft_model(model, LoraSettings(r=8).config(model))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert of_config(FAMILIES[family]).lora(8) == trained


def test_class_that_is_not_known_is_one_line() -> None:
    with pytest.raises(SizeUnknown, match="type mamba is not known; known are llama"):
        of_config({"model_type": "mamba", **TEXT})
    with pytest.raises(SizeUnknown, match="says nothing of num_hidden_layers"):
        of_config({"model_type": "llama", "hidden_size": 8})


def counted(model: Any, rows: int, length: int) -> tuple[float, float]:
    """FLOPs of a forward pass, and of one with its backward pass, by torch's counter."""
    ids = torch.zeros(rows, length, dtype=torch.long)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(input_ids=ids)
    with FlopCounterMode(display=False) as both:
        model(input_ids=ids, labels=ids).loss.backward()
    return forward.get_total_flops(), both.get_total_flops()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_forward_flops_are_what_torch_counts(family: str) -> None:
    config = FAMILIES[family]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="eager")
    forward, both = counted(model, 2, 48)
    size = of_config(config)
    assert size.forward(96, 48, 96) == pytest.approx(forward, rel=0.01)
    assert 3 * size.forward(96, 48, 96) == pytest.approx(both, rel=0.01)
