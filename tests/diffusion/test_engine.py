"""The diffusion engine: which models it takes, and that requests come back in order and with their faults named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engines.base import Decoding, EngineError, Request
from engines.diffusion import DiffusionEngine
from engines.masked import FLOOR, check_reads_ahead, mask_token_of
from engines.open import open_engine
from engines.settings import DiffusionSettings, TransformersSettings, VllmSettings

SETTINGS = DiffusionSettings(block_length=4, steps_per_block=2, batch_size=2)


def request(number: int, text: str, length: int = 8, temperature: float = 0.0, image: str | None = None) -> Request:
    turn = {"role": "user", "content": text}
    return Request(str(number), [turn], image, Decoding(length, temperature), seed=number)


def test_autoregressive_engines_refuse_a_masked_model_and_the_other_way_round(masked: str, causal: str) -> None:
    with pytest.raises(EngineError, match=r"a masked-diffusion model .*engine.kind=diffusion"):
        open_engine(TransformersSettings(), masked)
    with pytest.raises(EngineError, match="an autoregressive model"):
        open_engine(DiffusionSettings(), causal)
    pytest.importorskip("vllm")
    with pytest.raises(EngineError, match="a masked-diffusion model"):
        open_engine(VllmSettings(), masked)


def test_a_class_that_ignores_the_setting_is_found_out(masked: str, causal: str) -> None:
    check_reads_ahead(AutoModelForCausalLM.from_pretrained(masked), masked)
    with pytest.raises(EngineError, match=f"does not look ahead.*transformers {FLOOR}"):
        check_reads_ahead(AutoModelForCausalLM.from_pretrained(causal), causal)


def test_without_a_mask_token_it_says_where_to_give_one(masked: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(masked, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"mask_token_id": 999}))
    with pytest.raises(EngineError, match="mask_token_id 999 lies outside the vocabulary"):
        open_engine(SETTINGS, str(copy))
    none = SimpleNamespace(mask_token_id=None)
    with pytest.raises(EngineError, match="no mask token; give mask_token_id"):
        mask_token_of(SimpleNamespace(mask_token_id=None), none, "x")
    del config["mask_token_id"]
    (copy / "config.json").write_text(json.dumps(config))
    assert open_engine(SETTINGS, str(copy)) is not None, "the tokenizer's mask token serves"


def test_order_batches_and_seeds(masked: str) -> None:
    engine = DiffusionEngine.open(SETTINGS, masked)
    requests = [request(n, "abc"[: n % 3 + 1] * (n + 1), 8 if n % 2 else 12, 1.0) for n in range(6)]
    made = list(engine.generate(requests))
    assert [each.id for each in made] == [each.id for each in requests]
    for each, alone in zip(made, requests, strict=True):
        assert list(engine.generate([alone])) == [each]
    assert all(each.prompt_tokens == len(r.messages[0]["content"]) + 1 for each, r in zip(made, requests, strict=True))
    assert {each.finish for each in made} <= {"stop", "length"}


def test_temperature_zero_is_the_likeliest_token_of_each_step(masked: str) -> None:
    engine = DiffusionEngine.open(DiffusionSettings(block_length=1, steps_per_block=1), masked)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(masked).eval(), AutoTokenizer.from_pretrained(masked)
    canvas, prompt = [2] * 4, tokenizer("ab=")["input_ids"]
    for place in range(4):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + canvas])).logits[0, len(prompt) + place]
        logits[2] = -torch.inf
        canvas[place] = int(logits.argmax())
        if canvas[place] == 1:
            break
    made = next(engine.generate([request(0, "ab", 4)]))
    assert list(made.token_ids) == [token for token in canvas if token not in (1, 2)]


def test_faults_are_named_and_stop_no_other_row(masked: str) -> None:
    engine = DiffusionEngine.open(SETTINGS, masked)
    long, seen, fine = engine.generate([request(0, "a" * 60), request(1, "a", image="x.png"), request(2, "a")])
    assert long.error == "prompt and completion take 69 tokens, the model's context is 64"
    assert seen.error == "this masked-diffusion model reads no images"
    assert fine.error is None and fine.text
    with pytest.raises(EngineError, match=r"max_new_tokens 6, block_length 4: .* does not divide"):
        list(engine.generate([request(0, "a", 6)]))
    with pytest.raises(EngineError, match="no top_p"):
        list(engine.generate([Request("0", [{"role": "user", "content": "a"}], None, Decoding(8, 1.0, 0.5))]))
    with pytest.raises(EngineError, match="no teacher-forced likelihoods"):
        list(engine.score([]))
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        list(engine.generate([request(0, "a")]))
