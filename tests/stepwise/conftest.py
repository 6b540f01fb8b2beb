from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

LETTERS = string.ascii_lowercase + ".=+ " + string.digits
PROMPTS = ["ab", "cd", "abc", "d"]


@pytest.fixture(scope="session")
def tiny(make_tiny: Callable[..., str]) -> str:
    return make_tiny(hidden_size=16, intermediate_size=32)


@pytest.fixture(scope="session")
def make_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Makes a Llama of one layer with a token for each letter; saved, since TRL loads the reference model by path."""
    return lambda **sizes: _save_tiny(tmp_path_factory.mktemp("tiny"), **sizes)


def _save_tiny(path: Path, **sizes: Any) -> str:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(["<pad>", "<eos>", *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    config = LlamaConfig(
        vocab_size=len(vocabulary), num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=64, eos_token_id=1, pad_token_id=0, bos_token_id=None, **sizes,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path)
    fast.save_pretrained(path)
    return str(path)


def letters_of_prompt(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    """1 where at least three of the letters that were written are of the prompt: about half of all random ones."""
    return [
        float(sum(letter in prompt for letter in text) >= 1) for prompt, text in zip(prompts, completions, strict=True)
    ]


@pytest.fixture
def train(tiny: str, tmp_path: Path) -> Callable[..., list[dict[str, float]]]:
    """Trains a few steps with a trainer class; the logged rows."""

    def run(
        trainer_class: Any,
        steps: int = 3,
        lora: bool = False,
        extra: Any = None,
        prompts: Sequence[Any] = PROMPTS,
        **options: Any,
    ) -> Any:
        import torch
        from datasets import Dataset
        from peft import LoraConfig
        from transformers import PrinterCallback, ProgressCallback
        from trl import GRPOConfig

        config = GRPOConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=8, num_generations=4, max_completion_length=12,
            max_steps=steps, learning_rate=1e-2, logging_steps=1, report_to=[], bf16=False, use_cpu=True, seed=3,
            save_strategy="no", gradient_checkpointing=False, **options,
        )  # fmt: skip
        torch.manual_seed(0)
        peft = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
        rewards = options.pop("rewards", None)
        trainer = trainer_class(
            model=tiny, args=config, reward_funcs=rewards or [letters_of_prompt], peft_config=peft,
            train_dataset=Dataset.from_dict({"prompt": list(prompts) * 4}), **(extra or {}),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.train()
        return trainer

    return run
