"""Reinforcement learns, resumes as if never stopped, and sees images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import MambaConfig

from engines.base import Message
from rewards.contract import RewardError
from selfrefine.build import BuildSpec, build_model
from selfrefine.stepwise.reinforce import ReinforceSettings, reinforce
from selfrefine.stepwise.window import check_window
from selfrefine.training import TrainingStopped
from tasks.problem import Problem, TaskError

REWARD = """
def vowels(prompts, completions, *, letters, **columns):
    \"\"\"The share of a completion that is made of the wanted letters.\"\"\"
    texts = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
    return [sum(sign in wanted for sign in text) / max(8, len(text)) for text, wanted in zip(texts, letters)]

def odd(prompts, completions, **columns):
    return [float(len(each[-1]["content"]) % 2) for each in completions]

def some(prompts, completions, *, letters, **columns):
    return [float(value > 0.3) for value in vowels(prompts, completions, letters=letters)]

def nothing(prompts, completions, **columns):
    return [None] * len(completions)

def so_far(prompts, completions, steps, *, letters, share=1.0, **columns):
    assert all("".join(parts) == each[-1]["content"] for parts, each in zip(steps, completions))
    return [[share * any(sign in wanted for sign in "".join(parts[:k + 1])) for k in range(len(parts))]
            for parts, wanted in zip(steps, letters)]

batches = []

def later(prompts, completions, **columns):
    batches.append(completions)
    return [None if len(batches) == 1 else 0.5] * len(completions)
"""


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("rewards") / "letters.py"
    path.write_text(REWARD)
    return str(path)


@pytest.fixture(scope="module", params=["qwen2_5_vl", "llava"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    sizes = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300, "max_length": 256}
    seeing = {"vision_hidden_size": 32, "vision_layers": 1, "vision_heads": 2, "image_size": 32}
    path = tmp_path_factory.mktemp("model")
    build_model(BuildSpec(architecture=request.param, **(sizes | seeing)), ["what is it? a e"], path, seed=0)
    return str(path)


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> list[Problem]:
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    made = []
    for i in range(8):
        path = folder / f"{i}.png"
        Image.fromarray(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        made.append(Problem(f"{i}", f"what is {i}?", "a", str(path), f"{i}", columns={"letters": "aeiou"}))
    return made


def ask(problem: Problem) -> Sequence[Message]:
    return [{"role": "user", "content": problem.question}]


def settings(file: str, **changes: Any) -> ReinforceSettings:
    return ReinforceSettings.model_validate(
        {
            "steps": 6, "prompts": 2, "group": 4, "max_new_tokens": 12, "learning_rate": 3e-3, "save_every": 2,
            "rewards": [{"reward": f"{file}:some"}], "step_credit": {"gap": 1, "cuts": 2}, **changes,
        }
    )  # fmt: skip


def weights(directory: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        found |= load_file(path)
    return found


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_it_sees_images_and_writes_a_checkpoint_that_an_engine_opens(
    model: str, problems: list[Problem], rewards: str, tmp_path: Path, lora: Any
) -> None:
    from engines.base import Decoding, Request
    from engines.open import open_engine
    from engines.settings import TransformersSettings

    numbers = reinforce(
        problems, ask, model, tmp_path / "out", tmp_path / "saves", settings(rewards, steps=2, lora=lora), seed=1
    )
    assert numbers["steps"] == 2 and numbers["problems"] == 8
    engine = open_engine(TransformersSettings.model_validate({}), tmp_path / "out")
    request = Request("0", ask(problems[0]), problems[0].image, Decoding(4), 0)
    assert [each.id for each in engine.generate([request])] == ["0"]
    engine.close()


def test_prompts_of_unequal_length_keep_their_image_tokens_where_they_are(
    model: str, problems: list[Problem], rewards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL pads the two on different sides where the tokenizer's side is the right one."""
    from selfrefine.stepwise.trainer import StepCreditTrainer

    unequal = [replace(p, question=p.question + " what is it?" * (i % 3)) for i, p in enumerate(problems)]
    seen: list[dict[str, torch.Tensor]] = []
    original = StepCreditTrainer._compute_loss

    def spy(self: Any, model: Any, inputs: Any) -> Any:
        seen.append(inputs | {"image_id": torch.tensor(model.config.image_token_id)})
        return original(self, model, inputs)

    monkeypatch.setattr(StepCreditTrainer, "_compute_loss", spy)
    chosen = settings(rewards, steps=2, prompts=4)
    reinforce(unequal, ask, model, tmp_path / "out", tmp_path / "saves", chosen, seed=1)
    assert any((batch["prompt_mask"] == 0).any() for batch in seen), "all prompts were of one length"
    for batch in seen:
        if "mm_token_type_ids" in batch:  # the Qwen class reads positions of images off them
            width = batch["prompt_ids"].shape[1]
            found = batch["mm_token_type_ids"][:, :width] == 1
            assert torch.equal(found, batch["prompt_ids"] == batch["image_id"])


def test_problems_with_and_without_an_image_are_not_mixed(
    model: str, problems: list[Problem], rewards: str, tmp_path: Path
) -> None:
    mixed = [*problems[:5], *(replace(each, image=None) for each in problems[5:])]
    with pytest.raises(TaskError, match=r"^3 of 8 problems have no image, and a batch cannot hold both kinds; train"):
        reinforce(mixed, ask, model, tmp_path / "out", tmp_path / "saves", settings(rewards), seed=1)


def test_fewer_problems_than_a_step_takes_are_refused(
    model: str, problems: list[Problem], rewards: str, tmp_path: Path
) -> None:
    with pytest.raises(TaskError, match=r"^there are 8 problems, fewer than the 9 of a step; lower `prompts`"):
        reinforce(problems, ask, model, tmp_path / "out", tmp_path / "saves", settings(rewards, prompts=9), seed=1)


def test_it_learns_what_is_rewarded(problems: list[Problem], rewards: str, tiny_text: str, tmp_path: Path) -> None:
    plain = [Problem(p.id, p.question, p.answer, columns=p.columns) for p in problems]
    uses = [{"reward": f"{rewards}:vowels"}]
    chosen = settings(rewards, steps=40, prompts=4, group=8, learning_rate=1e-2, rewards=uses,
                      step_credit={"credit": "outcome", "group_filter": "none"})  # fmt: skip
    numbers = reinforce(plain, ask, tiny_text, tmp_path / "out", tmp_path / "saves", chosen, seed=1)
    assert numbers["vowels, last steps"] > numbers["vowels, first steps"] + 0.15, numbers


@pytest.fixture(scope="module")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    sizes = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300, "max_length": 256}
    seeing = {"vision_hidden_size": 32, "vision_layers": 1, "vision_heads": 2, "image_size": 32}
    path = tmp_path_factory.mktemp("text")
    build_model(BuildSpec(architecture="qwen2_5_vl", **(sizes | seeing)), ["what is it? a e"], path, seed=0)
    return str(path)


@pytest.mark.parametrize(
    "further",
    [{}, {"trl": {"beta": 0.5}}, {"trl": {"beta": 0.5}, "lora": {"r": 4}}, {"trl": {"num_iterations": 2}}],
    ids=["plain", "kl", "kl-lora", "inner"],
)
def test_a_stopped_training_ends_with_the_same_weights(
    tiny_text: str, problems: list[Problem], rewards: str, further: dict[str, Any], tmp_path: Path
) -> None:
    """Also where it stops in a later epoch: each has an order of its own. The reference stays the first model."""
    problems, chosen = problems[:4], settings(rewards, rewards=[{"reward": f"{rewards}:odd"}], **further)
    inner = chosen.trl.get("num_iterations", 1)
    reinforce(problems, ask, tiny_text, tmp_path / "whole", tmp_path / "saves", chosen, seed=1)
    asked = 0

    def third_step() -> bool:
        nonlocal asked
        asked += 1
        return asked >= 3

    with pytest.raises(TrainingStopped, match=f"step {4 if inner > 1 else 3} of 6"):
        reinforce(
            problems, ask, tiny_text, tmp_path / "out", tmp_path / "stopped", chosen, seed=1, should_stop=third_step
        )
    reinforce(problems, ask, tiny_text, tmp_path / "out", tmp_path / "stopped", chosen, seed=1)
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_batches_that_a_reward_scored_nothing_of_are_left_out_of_its_means(
    tiny_text: str, problems: list[Problem], rewards: str, tmp_path: Path
) -> None:
    uses = [{"reward": f"{rewards}:{name}"} for name in ("odd", "nothing", "later")]
    chosen = settings(rewards, steps=2, rewards=uses, step_credit={"credit": "outcome", "group_filter": "none"})
    logged: list[Any] = []
    numbers = reinforce(
        problems[:4], ask, tiny_text, tmp_path / "out", tmp_path / "saves", chosen, seed=1, on_log=logged.append
    )
    assert numbers["later, first steps"] == numbers["later, last steps"] == 0.5
    assert 0 <= numbers["odd, first steps"] <= 1
    log = [row for row in logged if "rewards/odd/mean" in row]
    assert [numbers["odd, first steps"], numbers["odd, last steps"]] == [row["rewards/odd/mean"] for row in log]
    assert "nothing, first steps" not in numbers and "odd, share of None" not in numbers, numbers
    assert (numbers["nothing, share of None"], numbers["later, share of None"]) == (1.0, 0.5)


def test_a_reward_that_wants_another_column_is_named(
    tiny_text: str, problems: list[Problem], rewards: str, tmp_path: Path
) -> None:
    bare = [Problem("0", "what?", "a")]
    with pytest.raises(RewardError, match="wants the column 'letters'; there are: answer, kind, question"):
        reinforce(bare, ask, tiny_text, tmp_path / "out", tmp_path / "saves", settings(rewards), seed=1)


def test_a_step_reward_of_a_file_is_asked_with_its_options_and_columns(
    tiny_text: str, problems: list[Problem], rewards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfrefine.stepwise import trainer as module

    values: list[torch.Tensor] = []
    rewarded = module.StepCreditTrainer._rewarded

    def spy(self: Any, kept: Any, places: Any) -> Any:
        values.append(rewarded(self, kept, places))
        return values[-1]

    monkeypatch.setattr(module.StepCreditTrainer, "_rewarded", spy)
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(1, len(pieces))))
    credit = {"credit": "step_reward", "reward": f"{rewards}:so_far", "options": {"share": 0.5}, "cuts": 3}
    chosen = settings(rewards, rewards=[{"reward": f"{rewards}:odd"}], step_credit=credit)
    plain = [Problem(p.id, p.question, p.answer, columns=p.columns) for p in problems]
    numbers = reinforce(plain, ask, tiny_text, tmp_path / "out", tmp_path / "saves", chosen, seed=1)
    assert numbers["steps"] == 6 and numbers["branch tokens"] == 0
    found = torch.cat(values)
    assert set(found[~found.isnan()].tolist()) == {0.0, 0.5}
    assert numbers["cuts"] == int((~found.isnan()).sum()) and numbers["cuts without a value"] == 0
    for reference, complaint in (
        ("odd", "takes no `steps`: it grades whole"),
        ("so_far", "the column 'letters'; there"),
    ):
        wrong = settings(rewards, step_credit={"credit": "step_reward", "reward": f"{rewards}:{reference}"})
        with pytest.raises(RewardError, match=complaint):
            reinforce(
                [Problem("0", "what?", "a")] if reference == "so_far" else plain, ask, tiny_text, tmp_path / "wrong",
                tmp_path / "wrong-saves", wrong.model_copy(update={"rewards": chosen.rewards}), seed=1,
            )  # fmt: skip
    with pytest.raises(RewardError, match="`so_far` takes `steps`: it is a step reward, which belongs in step_credit"):
        misplaced = settings(rewards, rewards=[{"reward": f"{rewards}:so_far"}])
        reinforce(plain, ask, tiny_text, tmp_path / "wrong", tmp_path / "wrong-saves", misplaced, seed=1)


def test_a_prompt_that_leaves_no_room_is_named_before_the_first_step(
    model: str, problems: list[Problem], rewards: str, tmp_path: Path
) -> None:
    """With its image, as the model reads it; the context is 256 tokens."""
    long = Problem("long one", "what is it? " * 200, "a", problems[0].image, columns=problems[0].columns)
    rows: list[Any] = []
    with pytest.raises(TaskError) as raised:
        reinforce(
            [*problems, long], ask, model, tmp_path / "out", tmp_path / "saves", settings(rewards, steps=9), seed=1,
            on_log=rows.append,
        )  # fmt: skip
    assert re.fullmatch(
        r"problem long one: its prompt takes \d+ tokens, which with max_new_tokens 12 is more than the model's context "
        r"of 256 \(1 of 9 problems are too long\); lower max_new_tokens, or leave them out of the data",
        str(raised.value),
    )
    assert not rows
    with pytest.raises(TaskError, match=r"problem \d: .* max_new_tokens 250 .* \(4 of 4 problems"):
        few = settings(rewards, steps=2, max_new_tokens=250)  # so only the four that two steps ask for are looked at
        reinforce(problems, ask, model, tmp_path / "out", tmp_path / "saves", few, seed=1)


def test_a_model_whose_config_tells_no_context_has_room_for_every_prompt() -> None:
    config = MambaConfig()
    assert not hasattr(config, "max_position_embeddings")
    trainer = SimpleNamespace(use_vllm=False, model=SimpleNamespace(config=config))
    check_window(trainer, [Problem("0", "what is it? " * 10_000, "a")], 1)


def test_branches_see_the_images_of_their_prompt(
    model: str, problems: list[Problem], rewards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfrefine.stepwise import trainer as module

    seen: list[tuple[list[int], list[int], list[list[int]], Any]] = []

    class Spied(module.Branches):
        def sample(self, begun: Any, count: int, at_once: int) -> Any:
            found = super().sample(begun, count, at_once)
            whole, _, _ = self._trainer._tokenize_prompts([each.prompt for each in begun])
            token = self._trainer.model.config.image_token_id
            seen.extend(
                (ids, each.prefix, branches, token) for ids, each, branches in zip(whole, begun, found, strict=True)
            )
            return found

    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(1, len(pieces))))
    monkeypatch.setattr(module, "Branches", Spied)
    chosen = settings(rewards, steps=2, rewards=[{"reward": f"{rewards}:odd"}])
    reinforce(problems, ask, model, tmp_path / "out", tmp_path / "saves", chosen, seed=1)
    assert seen
    for prompt, prefix, branches, token in seen:
        assert prompt.count(token) > 1 and token not in prefix
        for ids in branches:
            assert ids[: len(prefix)] == prefix and len(prefix) < len(ids) <= 12 and token not in ids


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"prompts": 3, "group": 5, "accumulate": 2}, "prompts 3 × group 5 cannot be split into 2"),
        ({"group": 1}, "group"),
        ({"temperature": 0}, "temperature"),
        ({"rewards": [{"reward": "number"}, {"reward": "number"}]}, "two rewards are called `number`"),
        ({"step_credit": {"outcome": "maths"}}, "no reward is called `maths`; there are: some"),
        ({"step_credit": {"credits": "segments"}}, "credits"),
        ({"step_credit": {"outcome_max": float("inf")}}, "outcome_max\n.*finite number"),
        ({"rewards": [{"reward": "number", "weight": float("nan")}]}, "weight\n.*finite number"),
    ],
)
def test_settings_that_cannot_work_are_refused(rewards: str, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        settings(rewards, **changes)
