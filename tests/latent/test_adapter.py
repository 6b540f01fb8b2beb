"""A loop trained on a pretrained model: its loss falls, its base stays, and a stop changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from engines.base import EngineError
from engines.checkpoint import load_model, load_processor
from engines.looped.config import LoopSettings, is_looped
from engines.looped.loop import loop_of
from engines.rendering import Renderer
from selfrefine.build import BuildSpec, build_model
from selfrefine.latent.adapter.reflect import reflect
from selfrefine.latent.adapter.settings import ReflectSettings, depth_at
from selfrefine.sft import Example, SftSettings, fine_tune
from selfrefine.training import LoraSettings, TrainingStopped

LORA = LoraSettings(r=4, alpha=8)
TWO = LoopSettings(iterations=2)
EXAMPLES = [Example([{"role": "user", "content": f"what follows {i}?"}], f"{i + 1}", None) for i in range(8)]
IDS = torch.randint(20, 290, (2, 12), generator=torch.Generator().manual_seed(0))


def settings(steps: int, **changed: Any) -> ReflectSettings:
    common = {"steps": steps, "batch_size": 8, "learning_rate": 5e-3, "loop": TWO, "lora": LORA}
    return ReflectSettings.model_validate(common | changed)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Builds a checkpoint of an architecture, once each, with weights large enough for prompts to differ."""
    made: dict[str, str] = {}

    def build(architecture: str = "llama") -> str:
        if architecture not in made:
            folder = tmp_path_factory.mktemp(architecture)
            sizes = {"hidden_size": 32, "layers": 4, "heads": 2, "kv_heads": 1, "vocab_size": 300, "max_length": 128}
            seeing = {"vision_hidden_size": 32, "vision_layers": 1, "vision_heads": 2, "image_size": 32}
            spec = BuildSpec(architecture=architecture, init_std=0.3, **(sizes | seeing))
            build_model(spec, ["what follows 1?"], folder, seed=0)
            made[architecture] = str(folder)
        return made[architecture]

    return build


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def digest(model: Any) -> str:
    """Of the base's weights, with or without a loop around them."""
    whole = hashlib.sha256()
    for name, weight in sorted((n.replace(".base_layer.", "."), w) for n, w in model.state_dict().items()):
        if "lora_" not in name and not name.startswith("latent_loop."):
            whole.update(name.encode() + weight.float().numpy().tobytes())
    return whole.hexdigest()


def test_the_loss_at_each_iteration_falls_and_the_base_stays(make: Callable[..., str], tmp_path: Path) -> None:
    rows: list[Mapping[str, Any]] = []
    numbers = reflect(EXAMPLES, make(), tmp_path / "out", tmp_path / "saves", settings(60), 0, on_log=rows.append)
    assert numbers["steps"] == 60 and numbers["examples"] == 8
    assert rows[0]["loss"] == pytest.approx(rows[0]["loss_1"]) and "loss_2" not in rows[29] and "loss_2" in rows[30]
    assert rows[-1]["loss_2"] < 0.5 * rows[0]["loss_1"]
    assert rows[-1]["loss"] == pytest.approx((rows[-1]["loss_1"] + rows[-1]["loss_2"]) / 2, rel=1e-4)
    assert rows[0]["gate_mix"] == 0 and rows[0]["growth_1"] == 1 and rows[-1]["gate_mix"] > 0
    assert is_looped(tmp_path / "out")
    for dtype in ("float32", "bfloat16"):
        base, model = load_model(make(), dtype=dtype), load_model(str(tmp_path / "out"), dtype=dtype)
        loop = loop_of(model)
        assert loop is not None and loop.iterations == 2
        assert digest(model) == digest(base)
        assert not torch.equal(logits(model), logits(base))
        loop.iterations = 0
        assert torch.equal(logits(model), logits(base))


def test_a_logged_loss_is_the_cross_entropy_at_that_iteration(make: Callable[..., str], tmp_path: Path) -> None:
    rows: list[Mapping[str, Any]] = []
    still = settings(3, learning_rate=1e-30, curriculum=False, loop=LoopSettings(iterations=3, gate_init=0.5))
    reflect(EXAMPLES, make(), tmp_path / "out", tmp_path / "saves", still, 0, on_log=rows.append)
    model = load_model(str(tmp_path / "out"))
    loop, renderer = loop_of(model), Renderer(load_processor(make()), model.config)
    assert loop is not None
    found = []
    for loop.iterations in (1, 2, 3):
        nats: list[float] = []
        for example in EXAMPLES:
            prompt = renderer.prompt_ids(example.messages, False)
            target = renderer.target_ids(example.messages, example.completion, False)
            with torch.no_grad():
                scores = model(input_ids=torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
            nats += torch.nn.functional.cross_entropy(scores, torch.tensor(target), reduction="none").tolist()
        found.append(sum(nats) / len(nats))
    assert len(set(found)) == 3
    for row in rows:
        assert [row[f"loss_{k}"] for k in (1, 2, 3)] == pytest.approx(found, rel=1e-4)


def test_passes_of_one_step_are_one_batch(make: Callable[..., str], tmp_path: Path) -> None:
    for accumulate in (1, 4):
        chosen = settings(3, accumulate=accumulate, curriculum=False)
        out = tmp_path / str(accumulate)
        reflect(EXAMPLES, make(), out / "out", out / "saves", chosen, 0)
    one, four = (load_file(tmp_path / name / "out/adapter_model.safetensors") for name in ("1", "4"))
    for name, weight in one.items():
        torch.testing.assert_close(four[name], weight, rtol=1e-3, atol=1e-4)
    assert one["gate_mix"].abs().max() > 1e-2


@pytest.mark.parametrize("sets", ["shared", "per_iteration"])
def test_a_stopped_training_ends_as_an_undisturbed_one(sets: str, make: Callable[..., str], tmp_path: Path) -> None:
    chosen = settings(6, loop=LoopSettings(iterations=3, lora_sets=sets), lora=LoraSettings(r=2, alpha=4, dropout=0.3))
    rows: list[dict[str, Any]] = []
    reflect(EXAMPLES, make(), tmp_path / "whole", tmp_path / "a", chosen, 0, on_log=lambda row: rows.append(dict(row)))
    again: list[dict[str, Any]] = []
    for stop in (1, 3):  # rows that are logged when it is asked: the stops come after steps 2 and 4
        with pytest.raises(TrainingStopped):
            reflect(
                EXAMPLES,
                make(),
                tmp_path / "resumed",
                tmp_path / "b",
                chosen,
                0,
                on_log=lambda row: again.append(dict(row)),
                should_stop=lambda stop=stop: len(again) == stop,  # type: ignore[misc]
            )
    reflect(
        EXAMPLES, make(), tmp_path / "resumed", tmp_path / "b", chosen, 0, on_log=lambda row: again.append(dict(row))
    )
    assert [row["step"] for row in again] == [1, 2, 3, 4, 5, 6]
    assert again == rows
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "resumed"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_gates_learn_ten_times_as_fast(make: Callable[..., str], tmp_path: Path) -> None:
    moved = {}
    for rate in (1.0, 10.0):
        chosen = settings(1, gate_rate=rate, lora=None, curriculum=False, trl={"warmup_steps": 0})
        out = tmp_path / str(rate)
        reflect(EXAMPLES, make(), out, tmp_path / f"saves-{rate}", chosen, 0)
        moved[rate] = load_file(out / "adapter_model.safetensors")["gate_mix"].abs()
    torch.testing.assert_close(moved[10.0], 10 * moved[1.0])  # the first step of AdamW is the rate for each weight
    torch.testing.assert_close(moved[1.0], torch.full_like(moved[1.0], 5e-3), rtol=1e-2, atol=0)


def test_the_curriculum_gives_each_depth_its_share() -> None:
    assert [depth_at(step, 8, 4) for step in range(8)] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [depth_at(step, 3, 1) for step in range(3)] == [1, 1, 1]
    assert [depth_at(step, 2, 4) for step in range(2)] == [1, 3]


def test_states_that_grow_are_told_of_once(make: Callable[..., str], tmp_path: Path) -> None:
    lines: list[str] = []
    wild = settings(6, learning_rate=0.2, loop=LoopSettings(iterations=2, input_iterations=2, state_scale="none"))
    rows: list[Mapping[str, Any]] = []
    reflect(EXAMPLES, make(), tmp_path / "out", tmp_path / "saves", wild, 0, on_log=rows.append, warn=lines.append)
    assert max(row.get("growth_2", 0) for row in rows) > 3
    assert len(lines) == 1 and "grow to more than 3 times" in lines[0]


def test_after_an_adapter_the_loop_is_trained_on_what_it_made(make: Callable[..., str], tmp_path: Path) -> None:
    tuning = SftSettings(steps=4, batch_size=8, learning_rate=1e-2, lora=LoraSettings(r=2, alpha=4))
    fine_tune(EXAMPLES, make(), tmp_path / "tuned", tmp_path / "saves", tuning, 0)
    reflect(EXAMPLES, str(tmp_path / "tuned"), tmp_path / "out", tmp_path / "b", settings(4), 0)
    tuned, model = load_model(str(tmp_path / "tuned")), load_model(str(tmp_path / "out"))
    loop = loop_of(model)
    assert loop is not None
    loop.iterations = 0
    assert torch.equal(logits(model), logits(tuned))
    assert not torch.equal(logits(tuned), logits(load_model(make())))
    assert load_processor(str(tmp_path / "out")).get_vocab() == load_processor(make()).get_vocab()


def test_plain_training_goes_on_with_the_loop_but_puts_no_adapter_on_it(
    make: Callable[..., str], tmp_path: Path
) -> None:
    first = str(tmp_path / "first")
    reflect(EXAMPLES, make(), Path(first), tmp_path / "a", settings(4), 0)
    tuning = SftSettings(steps=2, batch_size=8, learning_rate=1e-3)
    with pytest.raises(EngineError, match="trained further as it is; leave out lora"):
        fine_tune(EXAMPLES, first, tmp_path / "out", tmp_path / "b", tuning.model_copy(update={"lora": LORA}), 0)
    fine_tune(EXAMPLES, first, tmp_path / "second", tmp_path / "b", tuning, 0)
    before, after = (load_model(path) for path in (first, str(tmp_path / "second")))
    assert digest(before) == digest(after)
    assert not torch.equal(before.latent_loop.gate_mix, after.latent_loop.gate_mix)


def test_a_loop_is_trained_further_but_only_as_it_is(make: Callable[..., str], tmp_path: Path) -> None:
    first = tmp_path / "first"
    reflect(EXAMPLES, make(), first, tmp_path / "a", settings(4), 0)
    rows: list[Mapping[str, Any]] = []
    reflect(EXAMPLES, str(first), tmp_path / "second", tmp_path / "b", settings(4), 0, on_log=rows.append)
    before = load_file(first / "adapter_model.safetensors")["gate_mix"]
    assert rows[0]["gate_mix"] == pytest.approx(float(before.norm()))
    assert rows[-1]["gate_mix"] != rows[0]["gate_mix"] > 0
    assert load_model(str(tmp_path / "second")).latent_loop.config.base_model_name_or_path == make()
    for changed, complaint in (
        ({"loop": LoopSettings(iterations=3)}, f"iterations: the loop of {first} was made with 2, not 3"),
        ({"loop": LoopSettings(layers=(0, 1))}, "layers: the loop of .* was made with"),
        ({"lora": None}, "lora: the loop of"),
    ):
        with pytest.raises(EngineError, match=complaint):
            reflect(EXAMPLES, str(first), tmp_path / "third", tmp_path / "c", settings(4, **changed), 0)


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "llava"])
def test_a_vision_language_model_learns_with_its_images(
    architecture: str, make: Callable[..., str], tmp_path: Path
) -> None:
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    seeing = []
    for i in range(8):
        name = ("red", "blue")[i % 2]
        pixels = np.full((32, 32, 3), colours[name], dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        seeing.append(Example([{"role": "user", "content": "which?"}], name, str(tmp_path / f"{i}.png")))
    rows: list[Mapping[str, Any]] = []
    chosen = settings(24, trl={"gradient_checkpointing": True})
    reflect(seeing, make(architecture), tmp_path / "out", tmp_path / "saves", chosen, 0, on_log=rows.append)
    assert rows[-1]["loss_2"] < 0.6 * rows[0]["loss_1"]
    model = load_model(str(tmp_path / "out"))
    assert digest(model) == digest(load_model(make(architecture)))


@pytest.mark.parametrize(("sets", "expected"), [("shared", False), ("per_iteration", True)])
def test_processes_do_not_wait_for_the_lora_sets_that_a_shallow_step_leaves_out(
    sets: str, expected: bool, make: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `find_unused_parameters` a second process's gradients are waited for until torch raises."""
    found: list[bool] = []

    def looked_at(trainer: Any, *_: Any, **__: Any) -> None:
        found.append(trainer.accelerator.ddp_handler.find_unused_parameters)
        raise TrainingStopped

    monkeypatch.setattr("selfrefine.latent.adapter.reflect.run", looked_at)
    chosen = settings(2, loop=LoopSettings(iterations=2, lora_sets=sets), trl={"gradient_checkpointing": True})
    with pytest.raises(TrainingStopped):
        reflect(EXAMPLES, make(), tmp_path / "out", tmp_path / "saves", chosen, 0)
    assert found == [expected]


def test_what_cannot_be_trained_is_refused(make: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is nothing to train"):
        ReflectSettings(loop=LoopSettings(iterations=0))
    with pytest.raises(ValueError, match="freeze_vision"):
        ReflectSettings.model_validate({"freeze_vision": False})
    with pytest.raises(EngineError, match="masked-diffusion model"):
        reflect(EXAMPLES, make("masked_llama"), tmp_path / "out", tmp_path / "saves", settings(2), 0)
    with pytest.raises(EngineError, match="matches none of a layer's"):
        odd = settings(2, lora=LoraSettings(target_modules="c_attn"))
        reflect(EXAMPLES, make(), tmp_path / "out", tmp_path / "saves", odd, 0)
    with pytest.raises(EngineError, match="plain likelihood"):
        reflect(EXAMPLES, make(), tmp_path / "out", tmp_path / "saves", settings(2, trl={"loss_type": "dft"}), 0)
