"""A GGUF file as llama.cpp writes it for a Llama gives the very logits of that Llama."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from engines.base import EngineError
from selfrefine.gguf import unpack

TOKENS = ["<unk>", "<s>", "</s>", "a", "b", "ab", "Ġ", "Ġa"]
MERGES = ["a b", "Ġ a"]
# transformers' name of a layer's weight → llama.cpp's.
LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
OUTER = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}  # fmt: skip


@pytest.fixture
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(TOKENS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, initializer_range=0.3,
        )
    ).eval()  # fmt: skip


def packed(model: Any, path: Path) -> Path:
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(MERGES)
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, weight in model.state_dict().items():
        writer.add_tensor(*_renamed(name, weight, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _renamed(name: str, weight: torch.Tensor, config: Any) -> tuple[str, Any]:
    if name in OUTER:
        return OUTER[name], weight.numpy()
    _, _, layer, *parts, _ = name.split(".")
    part = ".".join(parts)
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}.get(part)
    if heads:  # llama.cpp rotates neighbours, transformers halves: the rows of each head lie in another order
        rows, columns = weight.shape
        weight = weight.view(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return f"blk.{layer}.{LAYER[part]}.weight", weight.contiguous().numpy()


def test_the_logits_are_those_of_the_packed_model(model: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = packed(model, tmp_path / "tiny.gguf")
    line = unpack(path, tmp_path / "plain", hashlib.sha256(path.read_bytes()).hexdigest().upper())
    assert line.startswith("tiny.gguf, 0.0 M parameters")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    ids = torch.tensor([[1, 3, 4, 5, 7, 2]])
    with torch.no_grad():
        torch.testing.assert_close(made(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    made(ids, labels=ids).loss.backward()  # it trains
    assert made.model.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    assert tokenizer.convert_ids_to_tokens(tokenizer("ab a", add_special_tokens=False).input_ids) == ["ab", "Ġa"]


def test_what_is_no_gguf_and_another_file_than_meant(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF and then nothing of the kind" * 10)
    with pytest.raises(EngineError, match=r"broken\.gguf: cannot be read as GGUF"):
        unpack(path, tmp_path / "plain")
    with pytest.raises(EngineError, match=r"its SHA-256 is .*, not 00"):
        unpack(path, tmp_path / "plain", "00")
