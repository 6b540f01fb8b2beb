"""FLOPs of trainings, held against torch's own counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from pipelines.cost.devices import GPUS, device
from pipelines.cost.models import Training, Writing
from pipelines.cost.reasoner import Reasoner
from pipelines.cost.sizes import known, of_config
from pipelines.cost.trainings import reinforced, tuned
from pipelines.cost.work import Phase, Work
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.model import LatentReasoner, parameters_of
from selfrefine.latent.settings import RolloutSettings
from selfrefine.latent.spec import ReasonerSpec
from selfrefine.sft import SftSettings
from selfrefine.stepwise.reinforce import MaskedSettings, ReinforceSettings
from selfrefine.stepwise.settings import StepCredit
from selfrefine.training import LoraSettings

TEXT = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 8,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA = {"model_type": "llama", **TEXT}
EYE = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 2, "image_size": 42, "patch_size": 14,
}  # fmt: skip
LLAVA = {"model_type": "llava", "text_config": LLAMA, "vision_config": EYE}
LENGTH = 40


def text_model() -> Any:
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**LLAMA), attn_implementation="eager")


def how(config: Any = LLAMA, **changes: Any) -> Training:
    values = {"rank": None, "freeze_vision": False, "checkpointing": False, "dtype": "float32", "precision": "float32"}
    return Training(of_config(config), **(values | changes))


def counted(model: Any, **inputs: Any) -> float:
    model.train()
    with FlopCounterMode(display=False) as counter:
        model(**inputs).loss.backward()
    return float(counter.get_total_flops())


def ids(rows: int = 2) -> dict[str, Any]:
    values = torch.arange(rows * LENGTH).view(rows, LENGTH) % 300
    return {"input_ids": values, "labels": values}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_all_parameters(checkpointing: bool) -> None:
    model = text_model()
    if checkpointing:
        model.gradient_checkpointing_enable()
    found = how(checkpointing=checkpointing).flops(2 * LENGTH, LENGTH, 2 * LENGTH, 0)
    # A layer is not computed again to its end: torch stops when it has what the backward pass wants.
    assert found == pytest.approx(counted(model, **ids()), rel=0.06 if checkpointing else 0.03)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_spare_the_gradients_of_what_is_frozen(checkpointing: bool) -> None:
    model = text_model()
    adapted = get_peft_model(model, LoraSettings(r=8).config(model))
    if checkpointing:
        adapted.enable_input_require_grads()
        adapted.gradient_checkpointing_enable()
    found = how(rank=8, checkpointing=checkpointing).flops(2 * LENGTH, LENGTH, 2 * LENGTH, 0)
    assert found == pytest.approx(counted(adapted, **ids()), rel=0.05)
    one, every = (
        how(rank=rank, checkpointing=checkpointing).flops(2 * LENGTH, LENGTH, 2 * LENGTH, 0) for rank in (1, None)
    )
    assert one < 0.85 * every


@pytest.mark.parametrize("frozen", [False, True])
def test_images(frozen: bool) -> None:
    config = AutoConfig.for_model(**LLAVA, image_token_index=319, image_seq_length=9, vision_feature_layer=-1)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager")
    if frozen:
        for parameter in model.model.vision_tower.parameters():
            parameter.requires_grad_(False)
    inputs = ids()
    inputs["input_ids"][:, :9] = 319
    inputs["labels"] = inputs["input_ids"].clone()
    real = counted(model, **inputs, pixel_values=torch.zeros(2, 3, 42, 42))
    found = how(LLAVA, freeze_vision=frozen).flops(2 * LENGTH, LENGTH, 2 * LENGTH, 2)
    assert found == pytest.approx(real, rel=0.05)


@pytest.mark.parametrize(
    ("recurrence", "again"), [("sr2", False), ("sr2", True), ("plain", False), ("hrm", False), ("trm", False)]
)
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_reasoner(recurrence: Any, again: bool, positions: str) -> None:
    sizes = {} if recurrence == "plain" else {"segments": 2, "updates": 3}
    spec = ReasonerSpec.model_validate(
        {"recurrence": recurrence, "hidden_size": 64, "heads": 2, "positions": positions, **sizes}
    )
    reasoner = Reasoner(spec, 16, "_1234")
    config = LatentReasonerConfig(alphabet="_1234", seq_len=16, **spec.model_dump())
    assert reasoner.parameters == parameters_of(config)
    model = LatentReasoner(config)
    if again:
        model.train().gradient_checkpointing_enable()
    values = torch.ones(3, 16, dtype=torch.long)
    real = counted(model, input_ids=values, labels=values)
    settings = RolloutSettings(steps=spec.segments, batch_size=3, gradient_checkpointing=again)
    found = reasoner.trained(settings, "float32", 1)
    # The counter sees no attention kernel of a CPU: its share is left out of both.
    attention = 4 * spec.layers * 64 * 17
    share = 2 * reasoner.stack / (2 * reasoner.stack + attention)
    assert found.flops * share == pytest.approx(real, rel=0.1)


def test_decoding_reads_weights_once_a_pass_and_the_cache_once_a_token() -> None:
    size = of_config(LLAMA)
    writer = Writing(size, "vllm", 4, "bfloat16")
    reading, decoding = writer.answers("", 8, prompt=100, mean=10, most=32)
    in_layers = 8 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160)
    weights = 2 * (in_layers + 320 * 64)
    passes = 2 * 10  # two batches of four rows, ten tokens each
    cache = 8 * 10 * (100 + 5) * (2 * 8 * 32) * 2
    assert decoding.moved == passes * weights + cache
    assert decoding.layers == passes * 8
    assert (decoding.generated, reading.prompt) == (80, 800)
    assert decoding.flops == 80 * (2 * in_layers + 4 * 8 * 64 * 105 + 2 * 64 * 320)


def test_batch_of_transformers_goes_on_until_its_longest_ends() -> None:
    size = of_config(LLAMA)
    short, long = (
        Writing(size, kind, 4, "float32").answers("", 4, 100, 10, 32)[1] for kind in ("vllm", "transformers")
    )
    assert long.layers == 2 * short.layers
    assert long.generated == short.generated
    # Four heads share two: read, written and read once, then written and read for each head.
    cache = 4 * 20 * 110 * (2 * 8 * 32) * 4 * (3 + 2 * 2)
    assert long.moved == 20 * 4 * (344064 + 320 * 64) + cache


def test_masked_model_passes_over_the_whole_canvas_in_each_step() -> None:
    size = of_config({**LLAMA, "is_causal": False})
    (phase,) = Writing(size, "diffusion", 4, "bfloat16", block=32, steps=16).answers("", 6, 50, 64, 64)
    assert phase.flops == 6 * 32 * size.forward(114, 114, 32)
    assert phase.layers == 2 * 32 * 8


def test_slowest_of_computing_moving_and_starting_decides() -> None:
    a100 = GPUS["a100"]
    assert Phase("", flops=312e12 * 0.3, moved=1, precision="bfloat16").seconds(a100) == pytest.approx(1)
    assert Phase("", flops=1, moved=2039e9 * 0.6 * 2).seconds(a100) == pytest.approx(2)
    assert Phase("", flops=1, layers=2000).seconds(a100) == pytest.approx(1)
    assert Phase("", flops=19.5e12 * 0.3).seconds(a100) == pytest.approx(1), "float32 has a peak of its own"


def test_gpu_hours_are_those_of_the_gpus_that_work() -> None:
    eight = device("8xa100")
    alone = Phase("", flops=1e18, precision="bfloat16")
    together = Phase("", flops=1e18, precision="bfloat16", gpus=8)
    assert Work([alone]).device_seconds(eight) == alone.seconds(eight)
    assert together.seconds(eight) == pytest.approx(alone.seconds(eight) / 8 / 0.9)
    assert Work([together]).device_seconds(eight) == pytest.approx(alone.seconds(eight) / 0.9)


def test_memory_of_full_tuning_and_of_adapters() -> None:
    """By hand: LLaVA-1.5-7B's weights, gradients and two averages in float32 are 16 bytes a parameter."""
    seven = known()["llava-hf/llava-1.5-7b-hf"]
    size = of_config(seven)
    full = how(seven, freeze_vision=True, checkpointing=True)
    trained = size.parameters - of_config(seven).vision.parameters  # type: ignore[union-attr]
    assert full.memory(0, 0, True) == 4 * size.parameters + 12 * trained
    adapters = how(seven, rank=128, checkpointing=True, dtype="bfloat16", precision="bfloat16")
    assert adapters.memory(0, 0, True) == 2 * size.parameters + 12 * size.lora(128)
    assert 20e9 < adapters.memory(4 * 826, 4 * 826, True) < 40e9
    without = how(seven, rank=128, dtype="bfloat16", precision="bfloat16")
    assert without.memory(826, 826, True) > adapters.memory(826, 826, True)


def test_steps_and_tokens_of_a_tuning() -> None:
    settings = SftSettings(epochs=2, batch_size=32, accumulate=4)
    work = tuned(how(), settings, rows=100, text=50, images=False, gpus=1, device=device("a100"))
    assert work.trained == 8 * 32 * 50  # four steps an epoch
    assert work.phases[0].layers == 8 * 4 * 3 * 8


def reinforce(**changes: Any) -> Work:
    settings = ReinforceSettings(**({"steps": 10, "prompts": 4, "group": 8, "max_new_tokens": 64} | changes))
    config = {**LLAMA, "is_causal": "diffusion" not in changes}
    return reinforced(how(config), settings, 100, 32, False, 1, device("a100"))


def test_reinforcement_counts_rollouts_branches_and_updates() -> None:
    outcome = reinforce(step_credit=StepCredit(credit="outcome"))
    assert outcome.generated == 10 * 32 * 32
    assert outcome.trained == 10 * 32 * 132
    assert [phase.name for phase in outcome.phases] == ["rollouts: reading", "rollouts", "updates"]
    segments = reinforce(step_credit=StepCredit(credit="segments", cuts=2, branches=2))
    branches = 32 * 0.5 * 2 * 2  # half of the groups are undecided
    assert segments.generated - outcome.generated == 10 * branches * 16
    read = next(phase for phase in segments.phases if phase.name == "branches: reading")
    assert read.prompt == 10 * branches / 2 * (100 + 16), "siblings share what was written up to their cut"
    progress = reinforce(step_credit=StepCredit(credit="progress", branches=2))
    assert progress.generated - outcome.generated == 10 * 32 * 0.5 * 0.5 * 2 * 16


def test_iterations_use_a_rollout_again_and_a_reference_reads_it() -> None:
    once = reinforce(step_credit=StepCredit(credit="outcome"))
    again = reinforce(step_credit=StepCredit(credit="outcome"), trl={"num_iterations": 5, "beta": 0.04})
    assert again.generated == once.generated / 5
    assert again.trained == once.trained
    reads = next(phase for phase in again.phases if phase.name == "log-probabilities")
    assert reads.prompt == 2 * 2 * 32 * 132  # two rounds, by the old policy and by the reference
    assert again.memory is not None and once.memory is not None
    assert again.memory - once.memory == 4 * of_config(LLAMA).parameters


def test_generated_tokens_end_a_training() -> None:
    ended = reinforce(step_credit=StepCredit(credit="outcome"), generated_tokens=3 * 32 * 32)
    assert ended.generated == 3 * 32 * 32


def test_estimators_of_a_masked_model_take_more_passes() -> None:
    one, blocks = (
        reinforce(diffusion=MaskedSettings(likelihood=name), step_credit=StepCredit(credit="outcome"))
        for name in ("one_step", "blocks")
    )
    assert blocks.trained == 2 * one.trained  # 64 tokens in blocks of 32
