"""Built models are members of their class, equal for equal arguments, and no text is unknown to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from engines.checkpoint import check_checkpoint, load_model, load_processor
from selfrefine.build import BuildSpec, build_model

ARCHITECTURES = ("qwen2_5_vl", "llava")
TEXTS = ("what is it?", "🦊👩‍👩‍👧 ünïcode\t\n  spaces  ", "日本語 and \x00 control", "[0.10, 0.20]", "a" * 300)


def digests(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def small(architecture: str) -> BuildSpec:
    return BuildSpec(
        architecture=architecture,  # type: ignore[arg-type]
        hidden_size=32,
        layers=1,
        heads=2,
        kv_heads=1,
        vision_hidden_size=32,
        vision_layers=1,
        image_size=32,
        vocab_size=300,
        max_length=256,
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_arguments_give_equal_files_and_the_seed_alone_changes_weights(architecture: str, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    made = {}
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        build_model(small(architecture), ["what is it?", "a cat"], tmp_path / name, seed)
        made[name] = digests(tmp_path / name)
    assert made["one"] == made["two"]
    differing = {name for name in made["one"] if made["one"][name] != made["other"][name]}
    assert differing == {"model.safetensors"}
    assert torch.equal(before, torch.get_rng_state())  # nobody else's draws were taken


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_built_model_is_loaded_whole_and_saved_as_it_was(
    architecture: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    directory = tiny(architecture)
    check_checkpoint(str(directory))
    model = load_model(str(directory))
    assert model.config.model_type == architecture
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path)
    again = load_model(str(tmp_path)).state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in model.state_dict().items())
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert head.data_ptr() == embedding.data_ptr()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_text_comes_back_from_the_tokenizer(architecture: str, tiny: Callable[[str], Path]) -> None:
    tokenizer = load_processor(str(tiny(architecture))).tokenizer
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    end = tokenizer(tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    assert end == [tokenizer.eos_token_id] != [tokenizer.pad_token_id]


def test_sizes_that_make_no_model_are_refused() -> None:
    with pytest.raises(ValidationError, match="hidden"):
        BuildSpec(hidden=64)  # type: ignore[call-arg]
    for sizes, word in (
        ({"hidden_size": 100, "heads": 3}, "hidden_size = 100 must be a multiple of 2 × heads; heads is 3"),
        ({"heads": 4, "kv_heads": 3}, "heads = 4"),
        ({"vision_hidden_size": 64, "vision_heads": 3}, "vision_hidden_size"),
        (
            {"image_size": 40, "patch_size": 16},
            "image_size = 40 must be a multiple of 2 × patch_size",
        ),
    ):
        with pytest.raises(ValidationError, match=word):
            BuildSpec(**sizes)  # type: ignore[arg-type]
