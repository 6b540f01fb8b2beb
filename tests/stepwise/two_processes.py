"""Run by torchrun for `test_two_processes.py`: trains in two processes; each writes what it saw to `seen-RANK.json`.

Arguments: a tiny model with a token for each letter, one that has a chat template, a masked-diffusion one that has one,
a directory to write to.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback
from trl import GRPOConfig

from engines.denoising import HIDDEN
from selfrefine.diffusion.trainer import MaskedCreditTrainer
from selfrefine.stepwise import trainer as module
from selfrefine.stepwise.credit import group_mean
from selfrefine.stepwise.grpo import GRPOTrainer
from selfrefine.stepwise.reinforce import ReinforceSettings, reinforce
from selfrefine.stepwise.settings import StepCredit
from selfrefine.stepwise.trainer import StepCreditTrainer
from selfrefine.training import TrainingStopped, is_first, processes
from tasks.problem import Problem

ROWS, GROUP = 6, 4  # of one process; so the second of three groups lies in both


def letters_of_prompt(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [float(any(sign in prompt for sign in text)) for prompt, text in zip(prompts, completions, strict=True)]


def trained(kind: Any, model: str, folder: Path, **further: Any) -> Any:
    config = GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=ROWS, num_generations=GROUP, max_completion_length=12,
        max_steps=3, learning_rate=1e-2, logging_steps=1, report_to=[], bf16=False, use_cpu=True, seed=3,
        save_strategy="no", gradient_checkpointing=False,
    )  # fmt: skip
    torch.manual_seed(0)
    trainer = kind(
        model=model, args=config, reward_funcs=[letters_of_prompt],
        train_dataset=Dataset.from_dict({"prompt": ["ab", "cd", "abc", "d"] * 4}), **further,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train()
    return trainer


class Spied(StepCreditTrainer):
    """Keeps what each round knew and did."""

    rounds: list[dict[str, Any]]
    sampled: list[int]

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        self.sampled.append(len(prompt_ids))
        return super()._generate_single_turn(prompt_ids, *args, **kwargs)

    def _credited(self, kept: Any, outcome: Any, advantages: Any, mask: Any) -> Any:
        texts = self.processing_class.batch_decode(kept.completion_ids, skip_special_tokens=True)
        self.rounds.append(
            {"prompts": list(kept.prompts), "texts": texts, "means": group_mean(outcome, GROUP).tolist(), "calls": []}
        )
        credited = super()._credited(kept, outcome, advantages, mask)
        self.rounds[-1]["credited"] = credited.tolist()
        return credited

    def _continued(self, kept: Any, wanted: Any) -> Any:
        open_rows = [cut for _, cut in wanted if cut != module.NO_CUT]
        self.rounds[-1]["calls"].append([len(wanted), len(open_rows)])
        return super()._continued(kept, wanted)


def stepped(model: str, folder: Path) -> list[list[int]]:
    """Of each call of a step reward: how many rows it was asked about, and how many of them have a cut."""
    calls: list[list[int]] = []

    def reward(prompts: Any, completions: Any, steps: Any, **columns: Any) -> Any:
        calls.append([len(steps), sum(len(parts) > 1 for parts in steps)])
        return [[0.5] * len(parts) for parts in steps]

    chosen = StepCredit(credit="step_reward", reward="mine", cuts=2)
    trained(StepCreditTrainer, model, folder, step_credit=chosen, step_reward=reward)
    return calls


def log_of(trainer: Any) -> list[list[float]]:
    return [[row["loss"], row["grad_norm"]] for row in trainer.state.log_history if "loss" in row]


def whole_method(chatting: str, folder: Path) -> dict[str, Any]:
    reward = folder / "odd.py"
    if is_first():
        reward.write_text(
            "def odd(prompts, completions, **columns):\n"
            "    return [float(len(each[-1]['content']) % 2) for each in completions]\n"
        )
    torch.distributed.barrier()
    settings = ReinforceSettings.model_validate(
        {
            "steps": 4, "prompts": 3, "group": GROUP, "max_new_tokens": 8, "learning_rate": 3e-3, "save_every": 2,
            "rewards": [{"reward": f"{reward}:odd"}], "step_credit": {"gap": 1},
        }
    )  # fmt: skip
    problems = [Problem(f"{i}", f"what is {i}?", "a") for i in range(6)]
    logged: list[int] = []
    asked = 0

    def third_step_of_the_second() -> bool:
        nonlocal asked
        asked += 1
        return not is_first() and asked == 3

    def train(name: str, **further: Any) -> Any:
        return reinforce(
            problems, lambda problem: [{"role": "user", "content": problem.question}], chatting, folder / name,
            folder / f"{name}-saves", settings, 1, on_log=lambda row: logged.append(row["step"]), **further,
        )  # fmt: skip

    numbers = train("whole")
    try:
        train("stopped", should_stop=third_step_of_the_second)
        stopped = ""
    except TrainingStopped as error:
        stopped = str(error)
    train("stopped")
    there = sorted(path.name for path in (folder / "stopped").iterdir())
    return {"logged": logged, "stopped": stopped, "numbers": numbers, "there": there}


def masked_method(masked: str, folder: Path) -> dict[str, Any]:
    """Passes before each backward one, fewer in the process whose rows end early, and branches."""
    uids: list[list[int]] = []
    compute = MaskedCreditTrainer._compute_loss

    def spy(self: Any, model: Any, inputs: Any) -> Any:
        uids.append(inputs["row_uid"].tolist())
        return compute(self, model, inputs)

    sample = MaskedCreditTrainer._run

    def ends_early(self: Any, canvases: Any, guess_at: Any = ()) -> Any:
        found = sample(self, canvases, guess_at)
        if not is_first():
            rows = found[0]
            rows.ids[:, 3] = min(self._ends)
            rows.ids[:, 4:], rows.step_map[:, 4:] = self._mask_id, HIDDEN
        return found

    MaskedCreditTrainer._compute_loss = spy  # type: ignore[method-assign]
    MaskedCreditTrainer._run = ends_early  # type: ignore[method-assign]
    settings = ReinforceSettings.model_validate(
        {
            "steps": 3, "prompts": 3, "group": GROUP, "max_new_tokens": 8, "learning_rate": 3e-3,
            "rewards": [{"reward": f"{folder / 'odd.py'}:odd"}], "step_credit": {"branches": 1},
            "diffusion": {"block_length": 4, "steps_per_block": 2, "likelihood": "blocks"},
        }
    )  # fmt: skip
    problems = [Problem(f"{i}", f"what is {i}?", "a") for i in range(6)]
    numbers = reinforce(
        problems, lambda problem: [{"role": "user", "content": problem.question}], masked, folder / "masked",
        folder / "masked-saves", settings, 1,
    )  # fmt: skip
    return {"numbers": numbers, "uids": uids}


def main(tiny: str, chatting: str, masked: str, out: str) -> None:
    folder = Path(out)
    Spied.rounds, Spied.sampled = [], []
    plain = trained(GRPOTrainer, tiny, folder)
    weightless = trained(StepCreditTrainer, tiny, folder, step_credit=StepCredit(weight=0, group_filter="none"))
    module.boundaries = lambda pieces, gap: list(range(1, len(pieces)))  # type: ignore[assignment]
    credited = trained(Spied, tiny, folder, step_credit=StepCredit(cuts=2))
    seen = {
        "processes": processes(),
        "plain": log_of(plain),
        "weightless": log_of(weightless),
        "credited": log_of(credited),
        "rounds": Spied.rounds,
        "sampled": Spied.sampled,
        "stepped": stepped(tiny, folder),
        "whole": whole_method(chatting, folder),
        "masked": masked_method(masked, folder),
    }
    (folder / f"seen-{torch.distributed.get_rank()}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
