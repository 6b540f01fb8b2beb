"""The loss is on the target alone, a stop changes nothing, and adapters stay adapters."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import selfrefine.sft as sft
import selfrefine.training as training
from engines.base import EngineError
from engines.checkpoint import is_adapter, load_model, load_processor
from engines.rendering import Renderer
from selfrefine.sft import Example, SftSettings, fine_tune
from selfrefine.training import LoraSettings, TrainingStopped, last_save

ARCHITECTURES = ("qwen2_5_vl", "llava")
QUICK = SftSettings(steps=4, batch_size=4, learning_rate=1e-2, save_every=100)


def train(examples: Sequence[Example], start: Path, out: Path, settings: SftSettings, **options: Any) -> Any:
    return fine_tune(examples, str(start), out / "result", out / "saves", settings, 0, **options)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(str(checkpoint)).state_dict())


@pytest.fixture
def batch_of(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[dict[str, torch.Tensor], Any, Any]]:
    """The batch that the real trainer makes of examples, with its model and processor."""

    def make(architecture: str, examples: Sequence[Example]) -> tuple[dict[str, torch.Tensor], Any, Any]:
        caught: list[Any] = []

        def catch(trainer: Any, *args: Any, **further: Any) -> Any:
            caught.append(trainer)
            raise TrainingStopped

        with monkeypatch.context() as patched, pytest.raises(TrainingStopped):
            patched.setattr(sft, "run", catch)
            train(examples, tiny(architecture), tmp_path, QUICK)
        trainer = caught[0]
        rows = [trainer.train_dataset[i] for i in range(len(examples))]
        return dict(trainer.data_collator(rows)), trainer, load_processor(str(tiny(architecture)))

    return make


@pytest.mark.parametrize("which", ["images", "mixed", "text"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_labels_are_the_completion_and_the_end_of_the_turn_and_nothing_else(
    architecture: str, which: str, batch_of: Callable[..., Any], examples: list[Example]
) -> None:
    chosen = [e for e in examples if which == "mixed" or (e.image is None) == (which == "text")]
    batch, trainer, processor = batch_of(architecture, chosen)
    renderer = Renderer(processor, trainer.model.config)
    image_token = renderer.tokenizer.convert_tokens_to_ids(
        "<|image_pad|>" if architecture == "qwen2_5_vl" else "<image>"
    )
    end = renderer.tokenizer.eos_token
    for example, ids, mask, labels in zip(
        chosen, batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
    ):
        seen = labels != -100
        target = renderer.tokenizer.decode(ids[seen])
        assert target.strip() == example.completion + end and target.endswith(end)
        assert torch.equal(ids[seen], labels[seen])
        assert mask[seen].all()
        # One piece, and before it exactly the prompt that the engines will put, its image expanded to patches.
        places = seen.nonzero().flatten()
        assert places.tolist() == list(range(int(places[0]), int(places[-1]) + 1))
        prompt = ids[: places[0]][mask[: places[0]] == 1]
        image = prompt == image_token
        assert (int(image.sum()) > 1) == (example.image is not None)
        first = image.nonzero().flatten()[:1]
        folded = [t for i, t in enumerate(prompt.tolist()) if t != image_token or i == int(first)]
        assert folded == renderer.prompt_ids(example.messages, example.image is not None)
        assert labels[seen].tolist() == renderer.target_ids(
            example.messages, example.completion, example.image is not None
        )
        assert not set(renderer.banned_ids) & set(labels[seen].tolist())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_of_a_batch_is_the_mean_over_its_target_tokens(
    architecture: str, batch_of: Callable[..., Any], examples: list[Example]
) -> None:
    """However the batch is split into forward passes: long targets weigh more than short ones, as in one pass."""
    seeing = [e for e in examples if e.image]
    batch, trainer, _ = batch_of(architecture, seeing)
    model = trainer.model.eval()
    with torch.inference_mode():
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits[:, :-1]
    targets = batch["labels"][:, 1:]
    kept = targets != -100
    per_token = -logits.double().log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)[kept]
    with torch.inference_mode():
        assert model(**batch).loss.item() == pytest.approx(per_token.mean().item(), abs=1e-5)
        sizes = [part["labels"][:, 1:].ne(-100).sum().item() for part in map(collate(trainer, seeing), range(3))]
        parts = [model(**part).loss.item() for part in map(collate(trainer, seeing), range(3))]
    assert len(set(sizes)) > 1
    weighted = sum(n * loss for n, loss in zip(sizes, parts, strict=True)) / sum(sizes)
    assert weighted == pytest.approx(per_token.mean().item(), abs=1e-5)


def collate(trainer: Any, examples: Sequence[Example]) -> Callable[[int], dict[str, torch.Tensor]]:
    """Part i of three unequal parts."""
    edges = [0, 1, 4, len(examples)]
    return lambda i: dict(trainer.data_collator([trainer.train_dataset[j] for j in range(edges[i], edges[i + 1])]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_accumulated_steps_are_those_of_the_whole_batch(
    architecture: str, tiny: Callable[[str], Path], examples: list[Example], tmp_path: Path
) -> None:
    """One step of 12 in one pass and in three: the same mean over target tokens, not a mean of three means."""
    seeing = [e for e in examples if e.image]
    found = []
    for accumulate in (1, 3):
        rows: list[Any] = []
        settings = SftSettings(steps=1, batch_size=12, accumulate=accumulate, learning_rate=1e-3)
        train(seeing, tiny(architecture), tmp_path / str(accumulate), settings, on_log=rows.append)
        found.append(rows[0])
    assert found[0]["tokens"] == found[1]["tokens"]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], abs=1e-5)
    assert found[0]["grad_norm"] == pytest.approx(found[1]["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("lora", [None, LoraSettings(r=2, alpha=4, dropout=0.2)], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stopped_training_ends_with_the_weights_of_an_undisturbed_one(
    architecture: str,
    lora: LoraSettings | None,
    tiny: Callable[[str], Path],
    examples: list[Example],
    tmp_path: Path,
) -> None:
    """Stopped twice, the second time in another epoch; dropout, order and optimiser go on where they were."""
    settings = QUICK.model_copy(update={"steps": 6, "lora": lora})
    rows: list[Any] = []
    whole = train(examples, tiny(architecture), tmp_path / "whole", settings, on_log=rows.append)
    again: list[Any] = []
    for stop_at in (2, 5):
        with pytest.raises(TrainingStopped, match=f"step {stop_at} of 6"):
            train(
                examples,
                tiny(architecture),
                tmp_path / "cut",
                settings,
                on_log=again.append,
                should_stop=lambda at=stop_at: len(again) + 1 >= at,  # asked before the step is logged
            )
        assert not (tmp_path / "cut" / "result").exists()
    finished = train(examples, tiny(architecture), tmp_path / "cut", settings, on_log=again.append)
    assert finished == whole and whole["steps"] == 6
    assert [row["loss"] for row in again] == [row["loss"] for row in rows]
    assert [row["tokens"] for row in again] == [row["tokens"] for row in rows]
    expected, found = weights(tmp_path / "whole" / "result"), weights(tmp_path / "cut" / "result")
    start = weights(tiny(architecture))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert any(not torch.equal(start[name], found[name]) for name in start)


def test_a_save_that_was_cut_short_is_not_resumed_from(tmp_path: Path) -> None:
    for step, complete in ((2, True), (10, True), (20, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if complete:
            (tmp_path / f"checkpoint-{step}" / "complete").touch()
    assert last_save(tmp_path) == tmp_path / "checkpoint-10"
    assert last_save(tmp_path / "nowhere") is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_adapter_leaves_base_and_vision_alone_and_is_trained_further(
    architecture: str, tiny: Callable[[str], Path], examples: list[Example], tmp_path: Path
) -> None:
    settings = QUICK.model_copy(update={"steps": 2, "lora": LoraSettings(r=2, alpha=4)})
    base = weights(tiny(architecture))
    train(examples, tiny(architecture), tmp_path / "first", settings)
    first = tmp_path / "first" / "result"
    assert is_adapter(first) and not list(first.glob("model*.safetensors"))
    assert json.loads((first / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny(architecture))
    train(examples, first, tmp_path / "second", settings)
    second = tmp_path / "second" / "result"
    assert is_adapter(second)
    merged = [base, weights(first), weights(second)]
    for before, after in itertools.pairwise(merged):
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        assert any("language_model" in name for name in moved)
        assert not [name for name in moved if "visual" in name or "vision_tower" in name]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_frozen_vision_stays_and_the_projector_learns(
    architecture: str, tiny: Callable[[str], Path], examples: list[Example], tmp_path: Path
) -> None:
    settings = QUICK.model_copy(update={"steps": 2, "freeze_vision": True})
    before = weights(tiny(architecture))
    train(examples, tiny(architecture), tmp_path, settings)
    after = weights(tmp_path / "result")
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    projector = "visual.merger" if architecture == "qwen2_5_vl" else "multi_modal_projector"
    assert any(projector in name for name in moved) and any("language_model" in name for name in moved)
    assert not [n for n in moved if ("visual" in n or "vision_tower" in n) and projector not in n]


def test_training_learns_its_examples(
    tiny: Callable[[str], Path], batch_of: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    batch, _, _ = batch_of("qwen2_5_vl", examples)
    rows: list[Any] = []
    settings = SftSettings(steps=30, batch_size=16, learning_rate=1e-2)
    numbers = train(examples, tiny("qwen2_5_vl"), tmp_path, settings, on_log=rows.append)
    assert {row["tokens"] for row in rows} == {int(batch["attention_mask"].sum())}, "each step reads all examples"
    assert rows[0]["loss"] > 5 and rows[-1]["loss"] < 2.5
    assert numbers["steps"] == 30 and numbers["examples"] == 16 and math.isfinite(numbers["loss"])
    assert not (tmp_path / "result" / "training_args.bin").exists()


def test_nothing_to_train_on_is_refused(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no examples"):
        train([], tiny("qwen2_5_vl"), tmp_path, QUICK)


def test_a_training_that_diverges_ends_with_its_step(
    tiny: Callable[[str], Path], examples: list[Example], tmp_path: Path
) -> None:
    wild = QUICK.model_copy(update={"learning_rate": 1e30, "trl": {"lr_scheduler_type": "constant", "warmup_steps": 0}})
    with pytest.raises(EngineError, match=r"^step \d: the loss is (nan|inf), the training has diverged; give a lower"):
        train(examples, tiny("llava"), tmp_path, wild)


def test_on_a_cpu_the_head_sees_what_has_a_loss_alone(
    tiny: Callable[[str], Path], batch_of: Callable[..., Any], examples: list[Example], tmp_path: Path, monkeypatch: Any
) -> None:
    from trl.trainer import utils

    batch, _, _ = batch_of("llava", examples)
    rows: list[int] = []

    class Counted:
        @staticmethod
        def apply(hidden: torch.Tensor, *others: Any) -> Any:
            rows.append(len(hidden))
            return counted(hidden, *others)

    counted = utils._ChunkedLogProbFunction.apply
    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Counted)
    settings = QUICK.model_copy(update={"batch_size": len(examples)})
    train(examples, tiny("llava"), tmp_path / "ours", settings)
    assert rows == [(batch["labels"] != -100).sum().item()] * 4
    with monkeypatch.context() as patched:
        patched.setattr(training, "_scored_alone", nullcontext)
        train(examples, tiny("llava"), tmp_path / "trl", settings)
    assert min(rows[4:]) > 2 * rows[0]
    ours, theirs = (weights(tmp_path / name / "result") for name in ("ours", "trl"))
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-4, atol=1e-5, msg=name)
