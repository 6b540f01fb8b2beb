"""LLaDA's weights under other names give the same logits as a forward written from its description."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import scaled_dot_product_attention, silu
from transformers import AutoModelForCausalLM, AutoTokenizer

from engines.base import EngineError
from engines.masked import check_reads_ahead
from selfrefine.diffusion.conversion import convert

SIZES = {
    "model_type": "llada", "d_model": 16, "mlp_hidden_size": 24, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
    "embedding_size": 20, "max_sequence_length": 64, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "weight_tying": False, "mask_token_id": 19, "eos_token_id": 18, "pad_token_id": 18, "block_type": "llama",
    "torch_dtype": "float32", "include_bias": False,
}  # fmt: skip


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = {"q_proj": (16, 16), "k_proj": (8, 16), "v_proj": (8, 16), "attn_out": (16, 16), "ff_proj": (24, 16)}
    shapes |= {"up_proj": (24, 16), "ff_out": (16, 24), "attn_norm": (16,), "ff_norm": (16,)}
    made = {
        f"model.transformer.blocks.{n}.{name}.weight": torch.randn(s) * 0.3
        for n in (0, 1)
        for name, s in shapes.items()
    }
    outer = {"wte": (20, 16), "ff_out": (20, 16), "ln_f": (16,)}
    return made | {f"model.transformer.{name}.weight": torch.randn(shape) * 0.3 for name, shape in outer.items()}


def reference(w: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """RMS norm, rotary positions by halves, full attention, gated feed-forward: (B, T) → (B, T, V)."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"model.transformer.{name}.weight"]

    def rotated(x: torch.Tensor) -> torch.Tensor:
        angles = torch.arange(x.shape[2])[:, None] / 500000.0 ** (torch.arange(0, 4, 2) / 4)
        first, second = x.chunk(2, -1)
        return torch.cat(
            [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1
        )

    x = w["model.transformer.wte.weight"][ids]
    for n in (0, 1):
        block = {k.split(".")[-2]: v for k, v in w.items() if f"blocks.{n}." in k}
        h = norm(x, f"blocks.{n}.attn_norm")
        q, k, v = (
            (h @ block[name].T).view(*ids.shape, -1, 4).transpose(1, 2) for name in ("q_proj", "k_proj", "v_proj")
        )
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        read = scaled_dot_product_attention(rotated(q), rotated(k), v, scale=1 / math.sqrt(4))
        x = x + read.transpose(1, 2).reshape(*ids.shape, 16) @ block["attn_out"].T
        h = norm(x, f"blocks.{n}.ff_norm")
        x = x + (silu(h @ block["ff_proj"].T) * (h @ block["up_proj"].T)) @ block["ff_out"].T
    return norm(x, "ln_f") @ w["model.transformer.ff_out.weight"].T


def write(directory: Path, made: dict[str, torch.Tensor], **config: object) -> Path:
    """Two shards, as large checkpoints come."""
    directory.mkdir()
    names = sorted(made)
    for number, half in enumerate((names[::2], names[1::2]), 1):
        save_file({name: made[name] for name in half}, directory / f"model-0000{number}-of-00002.safetensors")
    (directory / "config.json").write_text(json.dumps(SIZES | config))
    (directory / "modeling_llada.py").write_text("raise SystemExit")
    (directory / "tokenizer_config.json").write_text("{}")
    return directory


def test_converted_weights_give_the_reference_logits(tmp_path: Path) -> None:
    made = weights()
    convert(write(tmp_path / "llada", made), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    check_reads_ahead(model, "out")
    ids = torch.randint(0, 20, (3, 11))
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, reference(made, ids), atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json", "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors", "model.safetensors.index.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert model.config.mask_token_id == 19 and model.config.eos_token_id == 18
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("model.transformer.blocks.1.up_proj.weight"), "model.layers.1.mlp.up_proj.weight among them"),
        (
            lambda w: w.update({"model.transformer.extra.weight": torch.ones(1)}),
            "unexpected weight model.transformer.extra",
        ),
        (
            lambda w: w.update({"model.transformer.blocks.9.ff_norm.weight": torch.ones(16)}),
            "unexpected weight .*blocks.9",
        ),
        (
            lambda w: w.update({"model.transformer.wte.weight": torch.ones(20, 8)}),
            r"wte.weight has shape \(20, 8\), not",
        ),
    ],
)
def test_a_weight_that_is_wrong_is_named_and_nothing_is_left(tmp_path: Path, change: object, words: str) -> None:
    made = weights()
    change(made)  # type: ignore[operator]
    with pytest.raises(EngineError, match=words):
        convert(write(tmp_path / "llada", made), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_variant_that_a_llama_cannot_follow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="alibi is True; only False can be converted"):
        convert(write(tmp_path / "llada", weights(), alibi=True), tmp_path / "out")


def test_a_causal_model_gets_a_mask_and_looks_both_ways(causal: str, tmp_path: Path) -> None:
    convert(Path(causal), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    check_reads_ahead(model, "out")
    before = load_file(Path(causal) / "model.safetensors")["model.embed_tokens.weight"]
    known = len(before)
    assert tokenizer.mask_token_id == model.config.mask_token_id == known
    after = model.get_input_embeddings().weight
    assert torch.equal(after[:known], before)
    assert torch.allclose(after[known], before.mean(0), atol=1e-6)
    assert tokenizer("a<|mask|>b")["input_ids"][1] == known
    with pytest.raises(EngineError, match="already"):
        convert(tmp_path / "out", tmp_path / "twice")


def test_what_cannot_be_converted_is_named(tmp_path: Path) -> None:
    (tmp_path / "gpt").mkdir()
    with pytest.raises(EngineError, match="no config"):
        convert(tmp_path / "gpt", tmp_path / "out")
    (tmp_path / "gpt" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(EngineError, match="model_type 'gpt2' cannot be converted; llada, llama, qwen2, qwen3 can"):
        convert(tmp_path / "gpt", tmp_path / "out")


@pytest.mark.parametrize("kind", ["llada", "causal"])
def test_weights_that_are_cut_short_are_named_and_nothing_is_left(kind: str, causal: str, tmp_path: Path) -> None:
    source = write(tmp_path / "llada", weights()) if kind == "llada" else tmp_path / "causal"
    if kind == "causal":
        shutil.copytree(causal, source)
    shard = sorted(source.glob("*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(EngineError, match=rf"{shard}: is no whole safetensors file \(.*copy or save") as refused:
        convert(source, tmp_path / "out")
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()


def test_a_causal_model_that_lacks_a_weight_is_not_converted(causal: str, tmp_path: Path) -> None:
    """It would be drawn by chance, and be written as if it had been there."""
    shutil.copytree(causal, tmp_path / "causal")
    file = tmp_path / "causal/model.safetensors"
    whole = load_file(file)
    del whole["model.norm.weight"]
    save_file(whole, file, metadata={"format": "pt"})
    with pytest.raises(EngineError, match=r"model\.norm\.weight: not in its weights"):
        convert(tmp_path / "causal", tmp_path / "out")
    assert not (tmp_path / "out").exists()
