"""What vLLM samples from is the model in training, after every update of it; the known silent faults would show."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from engines.base import EngineError
from engines.vllm import import_vllm

try:
    import_vllm()  # before anything in this process imports TRL's trainer, and with it vLLM without its environment
except EngineError as error:
    pytest.skip(str(error), allow_module_level=True)

from datasets import Dataset
from trl import GRPOConfig
from trl.generation import vllm_generation
from trl.trainer import grpo_trainer

import engines.vllm
from engines.checkpoint import load_model, load_processor
from engines.rendering import banned_ids
from selfrefine.build import BuildSpec, build_model
from selfrefine.stepwise import colocate
from selfrefine.stepwise import trainer as module
from selfrefine.stepwise.branches import Branching
from selfrefine.stepwise.colocate import Colocated, collapsed, sampling_by_vllm
from selfrefine.stepwise.reinforce import ReinforceSettings, reinforce
from selfrefine.stepwise.settings import StepCredit
from selfrefine.stepwise.trainer import StepCreditTrainer
from selfrefine.training import LoraSettings, TrainingStopped
from tasks.problem import Problem

BOUND = 1e-4  # nats, in float32
MOST = 16
LARGE = 3e-2  # a learning rate at which each step changes every answer


@dataclass
class Seen:
    """What one short training showed: per round, how far sampling and training were apart; and its branches."""

    differences: list[float] = field(default_factory=list)
    branches: list[tuple[Branching, list[list[int]]]] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    asked: list[list[list[int]]] = field(default_factory=list)
    rooms: list[int] = field(default_factory=list)
    config: Any = None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, make_tiny: Callable[..., str]) -> Callable[[str], str]:
    """A model by the name of its kind, once each; head size 32 is the least that vLLM runs on a CPU."""
    made: dict[str, str] = {}

    def get(kind: str) -> str:
        if kind not in made and kind == "text":
            made[kind] = make_tiny(hidden_size=64, intermediate_size=64, tie_word_embeddings=True)
        elif kind not in made:
            path = tmp_path_factory.mktemp(kind)
            sizes = {"hidden_size": 64, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300, "max_length": 256}
            seeing = {"vision_hidden_size": 32, "vision_layers": 1, "vision_heads": 2, "image_size": 32}
            spec = BuildSpec(architecture=kind, **(sizes | seeing))
            build_model(spec, ["what is it? a e"], path, seed=0)
            made[kind] = str(path)
        return made[kind]

    return get


def by_tokens(prompts: Any, completions: Any, *, completion_ids: Any, **columns: Any) -> list[float]:
    return [float(sum(ids) % 5) for ids in completion_ids]


def rows(kind: str) -> Dataset:
    if kind == "text":
        return Dataset.from_dict({"prompt": ["ab", "cd", "abc", "d"] * 2})
    draws = np.random.default_rng(0)
    pictures = [Image.fromarray(draws.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(8)]

    def made(batch: Any) -> dict[str, list[Any]]:
        return {
            "prompt": [[{"role": "user", "content": f"what is {i}?"}] for i in batch["number"]],
            "image": [pictures[i] for i in batch["number"]],
        }

    return Dataset.from_dict({"number": range(8)}).with_transform(made)


def apart(model: Any, output: dict[str, Any]) -> float:
    """The largest difference between the log-probabilities that vLLM gave the tokens it chose, and the model's own.

    The model's are those of the tokens that may be chosen, as the logits of a plain forward pass give them.
    """
    fields = ("pixel_values", "image_grid_thw", "image_sizes", "token_type_ids", "mm_token_type_ids")
    chosen = output["completion_ids"]
    with torch.no_grad():
        logits = model(
            input_ids=torch.cat([output["prompt_ids"], chosen], 1),
            attention_mask=torch.cat([output["prompt_mask"], output["completion_mask"]], 1),
            **{name: output[name] for name in fields if name in output},
        ).logits[:, -chosen.shape[1] - 1 : -1]
    logits[..., list(banned_ids(model.config))] = -torch.inf
    own = logits.log_softmax(-1).gather(-1, chosen[..., None])[..., 0]
    found = (own - output["sampling_per_token_logps"])[output["completion_mask"].bool()]
    return float(found.abs().max())


def trained(checkpoint: str, kind: str, lora: bool, folder: Path, steps: int = 4) -> Seen:
    seen = Seen()

    class Watched(StepCreditTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            seen.differences.append(apart(self.model, output))
            return output

        def _generate(self, prompts: Any) -> Any:
            seen.rooms.append(self.vllm_generation.max_completion_length)
            return super()._generate(prompts)

        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            seen.asked.append([list(ids) for ids in prompt_ids])
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)

    class Spied(module.Branches):
        def sample(self, begun: Sequence[Branching], count: int, at_once: int) -> Any:
            found = super().sample(begun, count, at_once)
            seen.branches.extend(zip(begun, found, strict=True))
            ids, _, _ = self._trainer._tokenize_prompts([each.prompt for each in begun])
            seen.prompts.extend(ids)
            return found

    config = GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=8, num_generations=4, max_completion_length=MOST,
        max_steps=steps, learning_rate=LARGE, lr_scheduler_type="constant", logging_steps=1, report_to=[], bf16=False,
        use_cpu=True, seed=3, save_strategy="no", gradient_checkpointing=False, disable_tqdm=True, use_vllm=True,
    )  # fmt: skip

    def make() -> Any:
        model = load_model(checkpoint, dtype="float32")
        return Watched(
            model=model, args=config, reward_funcs=[by_tokens],
            train_dataset=rows(kind), processing_class=load_processor(checkpoint),
            peft_config=LoraSettings(r=4, alpha=8).config(model) if lora else None,
            step_credit=StepCredit(cuts=2, outcome_max=4),
        )  # fmt: skip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "boundaries", lambda pieces, gap: list(range(1, len(pieces))))
        patch.setattr(module, "Branches", Spied)
        with sampling_by_vllm(make) as trainer:
            assert isinstance(trainer.vllm_generation, Colocated)
            assert torch.initial_seed() == config.seed, "vLLM seeds the process with a number of its own"
            seen.config = trainer.model.config
            trainer.train()
    return seen


CASES = [("text", False), ("text", True), ("qwen2_5_vl", False), ("llava", True)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{'lora' if case[1] else 'full'}")
def seen(
    request: pytest.FixtureRequest, checkpoint: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Seen:
    kind, lora = request.param
    return trained(checkpoint(kind), kind, lora, tmp_path_factory.mktemp("out"))


def test_sampling_and_training_agree_after_each_large_update(seen: Seen) -> None:
    assert len(seen.differences) == 4
    assert max(seen.differences) < BOUND, seen.differences


def test_branches_go_on_from_the_tokens_of_their_prefix(seen: Seen) -> None:
    """Byte-equal, within the limit, and with the images of the prompt and no more."""
    assert seen.branches
    rounds = len(seen.rooms)
    if hasattr(seen.config, "image_token_id"):
        assert len(seen.asked) > 2 * rounds and max(map(len, seen.asked)) == 8, "images are read for no more rows"
    else:
        assert len(seen.asked) <= 2 * rounds and max(map(len, seen.asked)) > 8, "vLLM lets rows wait by itself"
    placeholder = getattr(seen.config, "image_token_id", None)
    extended = [ids for prompts in seen.asked for ids in prompts]
    for (begun, found), prompt in zip(seen.branches, seen.prompts, strict=True):
        assert len(found) == 2
        assert extended.count([*prompt, *begun.prefix]) >= 2
        assert [*prompt, *begun.prefix].count(placeholder) == prompt.count(placeholder)
        for ids in found:
            assert ids[: len(begun.prefix)] == begun.prefix and len(begun.prefix) < len(ids) <= MOST
            assert not set(banned_ids(seen.config)) & set(ids)
    if placeholder is not None:
        assert all(prompt.count(placeholder) > 1 for prompt in seen.prompts)
    assert len({tuple(ids) for _, found in seen.branches for ids in found}) > len(seen.branches)
    assert seen.rooms == [MOST] * 4, "rollouts after branches have their full room again"


def test_trl_is_left_as_it_was() -> None:
    assert grpo_trainer.VLLMGeneration is vllm_generation.VLLMGeneration
    assert vllm_generation.LLM.__module__.startswith("vllm")
    assert not torch.distributed.is_initialized()
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & set(os.environ)


# ── The faults ────────────────────────────────────────────────────────────────────────────────────────────────────


def unmerged(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """What is left of merged weights that are handed over as views, once the adapter has been taken out again."""
    for name, parameter in model.get_base_model().named_parameters():
        if "lora_" not in name:
            yield name.replace(".base_layer.", "."), parameter


def headless(named: Any, config: Any) -> Any:
    return [each for each in FOR_SERVING(named, config) if each[0] != "lm_head.weight"]


FOR_SERVING = engines.vllm.for_serving
OPEN = colocate.open_llm
FAULTS: dict[str, tuple[str, bool, Any, str, Any]] = {
    "unmerged adapter": ("text", True, colocate, "named_weights", unmerged),
    "stale tied head": ("text", False, engines.vllm, "for_serving", headless),
    "image expanded twice": ("qwen2_5_vl", False, Colocated, "generate", vllm_generation.VLLMGeneration.generate),
    "downcast": ("text", False, colocate, "open_llm", lambda *a, **o: OPEN(*a, **{**o, "dtype": "bfloat16"})),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_would_show(
    fault: str, checkpoint: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind, lora, owner, name, value = FAULTS[fault]
    monkeypatch.setattr(owner, name, value)
    differences = trained(checkpoint(kind), kind, lora, tmp_path, steps=2).differences
    assert max(differences) > 5 * BOUND, differences


def test_a_prompt_that_vllm_reads_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that puts more than a run of placeholders for an image, as Idefics3's does."""
    read = [1, 7, 7, 7, 2]
    monkeypatch.setattr(vllm_generation.VLLMGeneration, "generate", lambda self, *args: ([read], [], [], []))
    generation = object.__new__(Colocated)
    generation.model = SimpleNamespace(config=SimpleNamespace(image_token_id=7))
    assert generation.generate([read], [["image"]], 1)[0] == [read]
    with pytest.raises(EngineError, match="image as 5 tokens, the model's processor as 4"):
        generation.generate([[1, 7, 7, 2]], [["image"]], 1)


def test_a_placeholder_for_each_run() -> None:
    assert collapsed([7, 7, 1, 7, 7, 7, 2, 7], 7) == [7, 1, 7, 2, 7]
    assert collapsed([1, 2], 7) == [1, 2] and collapsed([], 7) == []


# ── The whole method ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stopped_training_goes_on_with_the_same_samples(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    reward = tmp_path / "odd.py"
    reward.write_text(
        "def odd(prompts, completions, **columns):\n"
        "    return [float(len(each[-1]['content']) % 2) for each in completions]\n"
    )
    settings = ReinforceSettings.model_validate(
        {
            "steps": 3, "prompts": 2, "group": 4, "max_new_tokens": 8, "learning_rate": 3e-3, "sampler": "vllm",
            "rewards": [{"reward": f"{reward}:odd"}], "step_credit": {"gap": 1},
        }
    )  # fmt: skip
    problems = [Problem(f"{i}", f"what is {i}?", "a") for i in range(4)]

    def train(name: str, stop: Callable[[], bool] = lambda: False) -> dict[str, torch.Tensor]:
        reinforce(
            problems, lambda p: [{"role": "user", "content": p.question}], checkpoint("qwen2_5_vl"), tmp_path / "out",
            tmp_path / name, settings, 1, should_stop=stop,
        )  # fmt: skip
        return load_file(tmp_path / "out/model.safetensors")

    whole = train("whole")
    with pytest.raises(TrainingStopped, match="step 1 of 3"):
        train("stopped", stop=lambda: True)
    resumed = train("stopped")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    first = Path(checkpoint("qwen2_5_vl")) / "model.safetensors"
    assert any(not torch.equal(whole[name], value) for name, value in load_file(first).items())
