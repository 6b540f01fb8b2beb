"""A looped checkpoint on disk: what is saved is what is loaded, by the engines too, and a mistake is one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import hub

from engines.base import EngineError, Request
from engines.checkpoint import base_of, check_checkpoint, is_adapter, load_model
from engines.endpoint import EndpointEngine
from engines.looped.config import CONFIG_FILE, LoopSettings, is_looped
from engines.looped.files import describe, load_loop
from engines.looped.loop import attach, loop_of
from engines.open import open_engine
from engines.settings import EndpointSettings, TransformersSettings, VllmSettings
from engines.transformers import TransformersEngine
from engines.weights import named_weights
from tests.engines.looped_models import KINDS, Low, base, enliven, tokens


def save_on(source: Path, target: Path, **settings: Any) -> Any:
    """A lively loop on the checkpoint `source`, saved to `target`; the looped model."""
    model = load_model(str(source))
    enliven(attach(model, describe(model, str(source), LoopSettings(**settings), Low())))
    model.save_pretrained(target)
    return model


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found: Tensor = model(input_ids=tokens(), use_cache=False).logits
    return found


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A base, and beside it a loop on it."""
    base().save_pretrained(tmp_path / "base")
    save_on(tmp_path / "base", tmp_path / "looped")
    return tmp_path / "looped"


def edited(directory: Path, **changes: Any) -> None:
    file = directory / CONFIG_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sets", ["shared", "per_iteration"])
def test_what_is_saved_is_what_is_loaded(kind: str, sets: str, tmp_path: Path) -> None:
    base(kind).save_pretrained(tmp_path / "base")
    expected = save_on(tmp_path / "base", tmp_path / "looped", lora_sets=sets)
    assert {path.name for path in (tmp_path / "looped").iterdir()} == {CONFIG_FILE, "adapter_model.safetensors"}
    assert is_looped(tmp_path / "looped") and is_adapter(tmp_path / "looped")
    assert base_of(tmp_path / "looped") == str(tmp_path / "base")
    check_checkpoint(str(tmp_path / "looped"))
    model = load_model(str(tmp_path / "looped"))
    assert torch.equal(logits(model), logits(expected))
    loop = loop_of(model)
    assert loop is not None and loop.iterations == 2
    for loop.iterations in (1, 0):
        other = logits(model)
        assert not torch.equal(other, logits(expected))
    assert torch.equal(other, logits(base(kind)))


def test_in_bfloat16_the_loop_s_own_weights_stay_in_float32(saved: Path) -> None:
    model = load_model(str(saved), dtype="bfloat16")
    loop = loop_of(model)
    assert loop is not None
    own = [parameter for part in loop.trainable().values() for parameter in part]
    assert {parameter.dtype for parameter in own} == {torch.float32}
    loop.iterations = 0
    plain = load_model(str(saved.parent / "base"), dtype="bfloat16")
    assert torch.equal(logits(model), logits(plain))
    model.save_pretrained(saved)
    loaded = loop_of(load_model(str(saved)))
    assert loaded is not None and torch.equal(loaded.gate_in, loop.gate_in)


def test_a_copy_has_a_loop_of_its_own_and_saves_that(saved: Path, tmp_path: Path) -> None:
    model = load_model(str(saved))
    before = logits(model)
    copied = copy.deepcopy(model)
    loop = loop_of(copied)
    assert loop is not None
    enliven(loop, seed=5)
    assert not torch.equal(logits(copied), before) and torch.equal(logits(model), before)
    for each, name in ((copied, "second"), (model, "first")):
        each.save_pretrained(tmp_path / name)
        assert torch.equal(logits(load_model(str(tmp_path / name))), logits(each))
    assert loop.remove() is copied
    assert torch.equal(logits(copied), logits(base())) and torch.equal(logits(model), before)
    copied.save_pretrained(tmp_path / "whole")
    assert not is_adapter(tmp_path / "whole")


def test_a_loop_is_pushed_by_the_call_that_does_so(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(str(saved))
    with pytest.raises(EngineError, match=r"push it with model\.push_to_hub"):
        model.save_pretrained(tmp_path / "pushed", push_to_hub=True)
    assert not (tmp_path / "pushed").exists()
    api = SimpleNamespace(create_repo=lambda name, **_: SimpleNamespace(repo_id=name))
    found: list[set[str]] = []

    def upload(self: Any, place: str, *_: Any, **__: Any) -> None:
        found.append({path.name for path in Path(place).iterdir()})

    monkeypatch.setattr(hub, "hf_api", lambda: api)
    monkeypatch.setattr(hub, "create_and_tag_model_card", lambda *_, **__: SimpleNamespace(save=lambda place: None))
    monkeypatch.setattr(type(model), "_upload_modified_files", upload)
    model.push_to_hub("org/name")
    assert found == [{CONFIG_FILE, "adapter_model.safetensors"}]


def test_the_base_may_be_an_adapter_which_is_merged(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base().save_pretrained(tmp_path / "base")
    tuned = get_peft_model(load_model(str(tmp_path / "base")), LoraConfig(r=2, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    with pytest.raises(EngineError, match="adapters that are not merged"):
        attach(tuned.get_base_model(), describe(load_model(str(tmp_path / "base")), "x", LoopSettings()))
    tuned.save_pretrained(tmp_path / "tuned")
    expected = save_on(tmp_path / "tuned", tmp_path / "looped")
    assert base_of(tmp_path / "looped") == str(tmp_path / "tuned")
    model = load_model(str(tmp_path / "looped"))
    assert torch.equal(logits(model), logits(expected))
    loop = loop_of(model)
    assert loop is not None
    loop.iterations = 0
    assert torch.equal(logits(model), logits(load_model(str(tmp_path / "tuned"))))
    assert not torch.equal(logits(model), logits(base()))


def resized(size: int) -> Any:
    """A Llama like the tests' base, with MLPs of another width."""
    config = base().config
    config.intermediate_size = size
    return type(base())(config)


def reseeded() -> Any:
    """A model of the base's shape and the size of its weights, and with others."""
    model = base()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.flatten().roll(7).view_as(parameter))
    return model


@pytest.mark.parametrize(
    ("make", "differs"),
    [
        (lambda: base("qwen3"), "model_type qwen3, not llama"),
        (lambda: resized(40), "intermediate_size 40, not 48"),
        (reseeded, r"the weights of layers\.2\.self_attn\.q_proj are 1\.\d of their size apart"),
    ],
)
def test_another_base_is_refused_with_both_names_and_what_differs(
    make: Callable[[], Any], differs: str, saved: Path, tmp_path: Path
) -> None:
    make().save_pretrained(tmp_path / "other")
    other = load_model(str(tmp_path / "other"))
    said = (
        f"{saved}: this loop was trained on {tmp_path / 'base'}, and {tmp_path / 'other'} is another model: {differs}; "
        "name the right one as base_model_name_or_path in adapter_config.json$"
    )
    with pytest.raises(EngineError, match=said):
        load_loop(other, saved)
    assert loop_of(other) is None
    edited(saved, base_model_name_or_path=str(tmp_path / "other"))
    with pytest.raises(EngineError, match=said):
        load_model(str(saved))
    other.save_pretrained(tmp_path / "base")
    edited(saved, base_model_name_or_path=str(tmp_path / "base"))
    with pytest.raises(EngineError, match=f"on {tmp_path / 'base'}, and what is there now is another model: {differs}"):
        load_model(str(saved))


def test_a_base_that_was_rounded_or_moved_a_little_passes_and_so_do_those_that_cannot_be_compared(
    saved: Path, tmp_path: Path
) -> None:
    """In bfloat16; with a LoRA merged; of an adapter that keeps no weights; on quantised weights."""
    rounded = load_model(str(tmp_path / "base"), dtype="bfloat16")
    rounded.save_pretrained(tmp_path / "rounded")
    moved = base()
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.1 * parameter.std() * torch.randn(parameter.shape))
    for model in (load_model(str(tmp_path / "rounded")), moved):
        load_loop(model, saved)
    quantised = reseeded()
    quantised.model.layers[2].self_attn.q_proj.weight = torch.nn.Parameter(
        torch.zeros(32, 32, dtype=torch.uint8), requires_grad=False
    )
    load_loop(quantised, saved)
    kept = json.loads((saved / CONFIG_FILE).read_text())
    assert len(kept["trained_on"]["values"]) == 32
    q = base().model.layers[2].self_attn.q_proj.weight
    for value, place in ((kept["trained_on"]["values"][0], (0, 0)), (kept["trained_on"]["values"][-1], (-1, -1))):
        assert value == pytest.approx(q[place].item(), rel=1e-5)
    del kept["trained_on"]
    (saved / CONFIG_FILE).write_text(json.dumps(kept))
    load_loop(reseeded(), saved)
    with pytest.raises(
        EngineError, match=f"trained on {tmp_path / 'base'}, and .* another model: it has another shape"
    ):
        load_loop(resized(40), saved)


def test_a_directory_that_is_damaged_is_refused_in_one_line(saved: Path) -> None:
    whole = json.loads((saved / CONFIG_FILE).read_text())
    for changes, complaint in (
        ({"loop": whole["loop"] | {"iterations": -1}}, "loop.iterations: .*greater than or equal to 0"),
        ({"loop": whole["loop"] | {"passes": 1}}, "loop.passes: Extra inputs"),
        ({"loop": whole["loop"] | {"layers": None}}, "which layers are looped"),
        ({"loop": whole["loop"] | {"layers": [0, 2]}}, "layers.* does not fit adapter_config.json"),
        ({"loop": whole["loop"] | {"layers": [4, 7]}}, rf"^{saved / CONFIG_FILE}: loop\.layers: \[4, 7\] ends behind"),
        ({"lora": whole["lora"] | {"r": 3}}, "does not fit adapter_config.json"),
        ({"lora": None}, "does not fit adapter_config.json"),
    ):
        edited(saved, **(whole | changes))
        with pytest.raises(EngineError, match=complaint) as refused:
            load_model(str(saved))
        assert "\n" not in str(refused.value)
    (saved / "adapter_model.safetensors").unlink()
    with pytest.raises(EngineError, match=r"no adapter_model\.safetensors"):
        check_checkpoint(str(saved))


@pytest.mark.parametrize("kind", ["llama", "llava"])
def test_a_base_that_is_not_whole_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    """What is missing, or has another shape, would be drawn by chance."""
    base(kind).save_pretrained(tmp_path / "base")
    load_model(str(tmp_path / "base"))
    file = tmp_path / "base/model.safetensors"
    whole = load_file(file)
    name = next(each for each in whole if each.endswith("layers.2.self_attn.q_proj.weight") and "vision" not in each)
    for damaged in ({}, {name: whole[name][:-1].clone()}):
        save_file({**{n: w for n, w in whole.items() if n != name}, **damaged}, file, metadata={"format": "pt"})
        said = rf"^{tmp_path / 'base'}: \S*layers\.2\.self_attn\.q_proj\.weight: not in its weights, or of another"
        with pytest.raises(EngineError, match=said) as refused:
            load_model(str(tmp_path / "base"))
        assert "\n" not in str(refused.value)


def test_weights_that_are_damaged_are_refused_with_their_file(saved: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(load_model(str(tmp_path / "base")), LoraConfig(r=2, target_modules="all-linear"))
    tuned.save_pretrained(tmp_path / "tuned")
    adapter = tmp_path / "tuned/adapter_model.safetensors"
    for file in (saved / "adapter_model.safetensors", adapter, tmp_path / "base/model.safetensors"):
        whole = file.read_bytes()
        for damaged in (b"", whole[:-1], whole[: len(whole) // 2], b"version https://git-lfs.github.com/spec/v1\n"):
            file.write_bytes(damaged)
            with pytest.raises(EngineError, match=f"{file}: is no whole safetensors file") as refused:
                load_model(str(file.parent))
            assert "\n" not in str(refused.value)
        file.write_bytes(whole)
    edited(adapter.parent, r=3)
    with pytest.raises(EngineError, match=f"{adapter.parent}: PEFT could not load this adapter .* it again$"):
        load_model(str(adapter.parent))
    model = load_model(str(tmp_path / "base"))
    (saved / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(EngineError, match="is no whole safetensors file"):
        load_loop(model, saved)
    (saved / "adapter_model.safetensors").unlink()
    with pytest.raises(EngineError, match=r"but no adapter_model\.safetensors"):
        load_loop(model, saved)
    assert loop_of(model) is None


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "llava"])
def test_the_engine_writes_with_it(
    architecture: str, make_vlm: Callable[..., Path], requests_: Sequence[Request], tmp_path: Path
) -> None:
    source = make_vlm(architecture, lively=True)
    model = save_on(source, tmp_path / "looped", layers=(0, 1))

    def answers(checkpoint: Path, requests: Sequence[Request] = requests_, **settings: Any) -> list[tuple[int, ...]]:
        engine = open_engine(TransformersSettings(**settings), checkpoint)
        assert isinstance(engine, TransformersEngine)
        assert engine._model.config.model_type == model.config.model_type
        found = [each.token_ids for each in engine.generate(requests)]
        engine.close()
        return found

    plain, trained, more = answers(source), answers(tmp_path / "looped"), answers(tmp_path / "looped", iterations=4)
    assert answers(tmp_path / "looped", iterations=0) == plain
    assert trained != plain and more not in (trained, plain)
    assert answers(source, iterations=4) == plain
    assert answers(tmp_path / "looped", batch_size=1) == trained
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        TransformersSettings(iterations=-1)


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "llava"])
def test_with_images_a_cache_changes_nothing(
    architecture: str, make_vlm: Callable[..., Path], requests_: Sequence[Request], tmp_path: Path
) -> None:
    save_on(make_vlm(architecture, lively=True), tmp_path / "looped", layers=(0, 1))
    engine = open_engine(TransformersSettings(dtype="float32"), tmp_path / "looped")
    assert isinstance(engine, TransformersEngine)
    seeing = [request for request in requests_ if request.image is not None][:5]
    texts = [engine._renderer.prompt_text(request.messages, True) for request in seeing]
    inputs, rows, _ = engine._inputs(seeing, texts, [8] * len(seeing))
    assert len(rows) == len(seeing) and not inputs["attention_mask"].all()
    with_cache, without = (
        engine._model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False, use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert torch.equal(with_cache, without)


def test_engines_that_cannot_loop_refuse_it_in_one_line(saved: Path) -> None:
    settings = (VllmSettings(), EndpointSettings(url="http://127.0.0.1:1"))
    for each, name in zip(settings, ("vLLM", "a server"), strict=True):
        with pytest.raises(EngineError) as refused:
            open_engine(each, saved)
        assert f"{saved}: {name} cannot run a looped checkpoint (2 iterations)" in str(refused.value)
        assert str(saved.parent / "base") in str(refused.value) and "\n" not in str(refused.value)


def test_a_looped_model_hands_no_weights_to_a_server(saved: Path) -> None:
    model = load_model(str(saved))
    with pytest.raises(EngineError, match="vLLM cannot run a looped model"):
        list(named_weights(model))
    loop = loop_of(model)
    assert loop is not None
    assert dict(named_weights(loop.remove())).keys() == dict(base().named_parameters()).keys()


def test_without_iterations_a_server_may_answer_as_the_base(saved: Path, monkeypatch: Any) -> None:
    edited(saved, loop=json.loads((saved / CONFIG_FILE).read_text())["loop"] | {"iterations": 0})
    asked = []

    def served(self: Any, checkpoint: str) -> Any:
        asked.append(checkpoint)
        raise EngineError("seen")

    monkeypatch.setattr(EndpointEngine, "_served", served)
    with pytest.raises(EngineError, match="seen"):
        open_engine(EndpointSettings(url="http://127.0.0.1:1"), saved)
    assert asked == [str(saved.parent / "base")]
