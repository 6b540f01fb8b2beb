"""A step reward in the trainer: what it is asked, and that what it says reaches each token."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import fmean
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rewards.contract import RewardError
from rewards.watch import PATIENCE
from selfrefine.stepwise import trainer as module
from selfrefine.stepwise.cuts import flip
from selfrefine.stepwise.graded import GradedSteps
from selfrefine.stepwise.grpo import GRPOTrainer
from selfrefine.stepwise.parts import parts
from selfrefine.stepwise.settings import StepCredit
from selfrefine.stepwise.trainer import StepCreditTrainer

Train = Callable[..., Any]
GROUP, SUCCESS = 4, 2.0


def graded(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [SUCCESS * any(sign in prompt for sign in text) for prompt, text in zip(prompts, completions, strict=True)]


def value(text: str) -> float | None:
    """Of a text that has been written so far; None at about a third of all cuts."""
    return None if sum(map(ord, text)) % 3 == 0 else SUCCESS * len(set(text)) / 12


class Asked:
    """A step reward that keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, prompts: Any, completions: Any, steps: Any, **columns: Any) -> list[list[float | None]]:
        self.calls.append((prompts, completions, steps, columns))
        return [[value("".join(parts[: k + 1])) for k in range(len(parts))] for parts in steps]


def settings(**changes: Any) -> StepCredit:
    return StepCredit.model_validate(
        {
            "credit": "step_reward", "reward": "asked", "outcome_max": SUCCESS, "cuts": 12, "calibrate": "none",
            "group_filter": "none", **changes,
        }
    )  # fmt: skip


def with_outcome(reward: Any, base: Any = StepCreditTrainer) -> Any:
    class Made(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "reward_funcs": [reward]})

    return Made


def by_hand(outcomes: list[float], row: int, letters: list[str], cuts: list[int]) -> list[float]:
    """What each token of a row is worth: known values in a line, and the difference for all tokens between two.

    On the scale of the reward, which is the whole advantage.
    """
    others = fmean([*outcomes[:row], *outcomes[row + 1 :]])
    line: list[tuple[int, float]] = [(0, others)]
    for cut in cuts:
        if (found := value("".join(letters[:cut]))) is not None:
            line.append((cut, found / SUCCESS))
    line.append((10**6, outcomes[row]))
    worth = []
    for place in range(len(letters)):
        worth += [SUCCESS * (after[1] - before[1]) for before, after in pairwise(line) if before[0] <= place < after[0]]
    return worth


@pytest.mark.parametrize("cuts", [2, 12])
def test_every_token_is_worth_what_its_part_changed(train: Train, monkeypatch: pytest.MonkeyPatch, cuts: int) -> None:
    """Where a value is None its two parts are one."""
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(2, len(pieces), 2)))
    asked, seen = Asked(), {"merged": 0, "apart": 0, "rows": 0}

    class Spied(with_outcome(graded)):  # type: ignore[misc]
        def _values(self, kept: Any, places: Any) -> Any:
            self.places = places.tolist()
            return super()._values(kept, places)

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            calls = len(asked.calls)
            output = super()._generate_and_score_completions(inputs)
            texts = self.processing_class.batch_decode(output["completion_ids"], skip_special_tokens=True)
            given, mask = output["advantages"], output["completion_mask"].bool()
            outcomes = [each / SUCCESS for each in graded([each["prompt"] for each in inputs], texts)]
            for row in range(len(texts)):
                group = outcomes[row // GROUP * GROUP :][:GROUP]
                if len(set(group)) == 1:  # nobody is asked, and there is one part: the whole
                    assert self.places[row] == [-1] * cuts
                    continue
                drawn = [cut for cut in self.places[row] if cut >= 0]
                ids = [[each] for each in output["completion_ids"][row][mask[row]].tolist()]
                letters = self.processing_class.batch_decode(ids, skip_special_tokens=True)
                expected = by_hand(group, row % GROUP, letters, drawn)
                assert given[row][mask[row]].tolist() == pytest.approx(expected, abs=1e-6)
                known = [value("".join(letters[:cut])) for cut in drawn]
                seen["merged"] += None in known
                seen["apart"] += len(set(known) - {None}) > 1
                seen["rows"] += 1
            assert len(asked.calls) <= calls + 1, "one call a round"
            return output

    found = train(
        Spied, scale_rewards="none", steps=4, extra={"step_credit": settings(cuts=cuts), "step_reward": asked}
    )
    assert seen["merged"] > 2 and seen["rows"] > 8 and (cuts == 2 or seen["apart"] > 2), seen
    rows = [row for row in found.state.log_history if "loss" in row]
    counts = [(row["step_aware/cuts"], row["step_aware/cuts_unscored"]) for row in rows if "step_aware/cuts" in row]
    scores = [
        [value("".join(each[:k])) for each in steps for k in range(1, len(each))] for _, _, steps, _ in asked.calls
    ]
    assert counts == [(len(row), row.count(None)) for row in scores]
    assert all(row["step_aware/rollout_tokens"] > 0 and "step_aware/branch_tokens" not in row for row in rows)


def test_coins_are_tossed_for_places_one_by_one(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each row another: by the seed, the step and the row."""
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(1, len(pieces))))
    seen: list[list[int]] = []

    class Spied(with_outcome(graded)):  # type: ignore[misc]
        def _values(self, kept: Any, places: Any) -> Any:
            for row, each in enumerate(places.tolist()):
                cuts = [cut for cut in each if cut >= 0]
                there = range(1, len(kept.completion_ids[row]))
                assert not cuts or cuts == flip(there, 2, 0.3, self.args.seed, self.state.global_step, row)
                seen.extend([cuts] if cuts else [])
            return super()._values(kept, places)

    train(Spied, extra={"step_credit": settings(cut="coin", chance=0.3, cuts=2), "step_reward": Asked()})
    assert len(seen) > 8 and len({tuple(each) for each in seen}) > 4


def test_it_is_asked_about_open_rows_with_parts_that_make_up_the_completion(train: Train) -> None:
    """Cut by the rule itself, behind `.`; and with what any reward is called with, but a column of its own name."""
    asked = Asked()
    columns = {"prompt": ["ab", "cd", "abc", "d"] * 4, "clue": [f"c{i}" for i in range(16)], "steps": [1] * 16}
    data = Dataset.from_dict(columns)

    class Columned(with_outcome(graded)):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "train_dataset": data})

    train(Columned, steps=6, extra={"step_credit": settings(gap=1), "step_reward": asked})
    assert asked.calls
    for prompts, completions, steps, columns in asked.calls:
        assert len(prompts) == len(completions) == len(steps) == len(columns["clue"]) == len(columns["completion_ids"])
        assert ["".join(each) for each in steps] == completions
        assert all(len(each) > 1 and all(part[-1] == "." for part in each[:-1]) for each in steps)
        assert columns["trainer_state"].global_step >= 0 and "steps" not in columns


def test_without_weight_it_is_never_asked_and_every_bit_is_trl_s(train: Train) -> None:
    def log_of(trainer: Any) -> list[tuple[float, float]]:
        return [(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row]

    asked, plain = Asked(), log_of(train(with_outcome(graded, GRPOTrainer)))
    extra = {"step_credit": settings(weight=0, gap=1), "step_reward": asked}
    assert log_of(train(with_outcome(graded), extra=extra)) == plain and not asked.calls
    extra["step_credit"] = settings(gap=1)
    assert log_of(train(with_outcome(graded), extra=extra)) != plain and asked.calls


def test_one_that_breaks_its_contract_is_named(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(1, len(pieces))))

    def short(prompts: Any, completions: Any, steps: Any, **columns: Any) -> Any:
        return [[1.0] for _ in steps]

    with pytest.raises(RewardError, match=r"^step reward `short` returned 1 values for the \d+ steps of completion 0$"):
        train(with_outcome(graded), extra={"step_credit": settings(), "step_reward": short})


def test_a_function_is_wanted_with_the_name(train: Train) -> None:
    with pytest.raises(ValueError, match="a step reward is named, and not given"):
        train(StepCreditTrainer, extra={"step_credit": settings()})
    with pytest.raises(ValueError, match="step_reward wants to know which; give reward"):
        StepCredit(credit="step_reward")
    with pytest.raises(ValueError, match="calibrate: baselines wants branches, and step_reward takes none"):
        settings(calibrate="baselines")


@pytest.mark.parametrize("credit", ["segments", "progress", "one_step"])
def test_one_that_would_not_be_asked_is_refused(credit: str) -> None:
    """`credit` is `segments` where it is left out: branches would run, and the reward be forgotten."""
    with pytest.raises(ValueError, match=f"reward: {credit} asks no step reward; give credit: step_reward"):
        settings(credit=credit)
    with pytest.raises(ValueError, match="options: they are arguments of a step reward, and none is named"):
        settings(credit=credit, reward=None, options={"target": 3})
    assert not settings(credit="outcome").given  # an arm without credit, of a recipe with it


def test_one_that_says_nothing_ends_the_training() -> None:
    """But for the last parts, whose values are not used. A batch of fillers, in one part each, is none."""

    def last(prompts: Any, completions: Any, steps: Any, **columns: Any) -> Any:
        return [[*[None] * (len(each) - 1), 1.0] for each in steps]

    reward = GradedSteps(last, "mine", 60)
    for _ in range(PATIENCE - 1):
        reward(["", ""], ["abc", "d"], [["a", "b", "c"], ["d"]])
        reward([""], ["d"], [["d"]])
    with pytest.raises(RewardError, match=rf"^step reward `mine` has given .* None for {PATIENCE} batches \(2 in this"):
        reward(["", ""], ["abc", "d"], [["a", "b", "c"], ["d"]])


def test_one_that_hangs_or_raises_is_one_line() -> None:
    def hangs(prompts: Any, completions: Any, steps: Any, **columns: Any) -> Any:
        while True:
            pass

    def picky(prompts: Any, completions: Any, steps: Any, **columns: Any) -> Any:
        return [[1 / len(part) for part in each] for each in steps]

    with pytest.raises(RewardError, match=r"^step reward `mine` did not return within 0\.2 seconds for 1 completions"):
        GradedSteps(hangs, "mine", 0.2)([""], ["ab"], [["a", "b"]])
    with pytest.raises(RewardError, match=r"`picky` raised ZeroDivisionError .* \(completion 1: 'b'\)$"):
        GradedSteps(picky, "mine", 5)(["", ""], ["a", "b"], [["a"], ["", "b"]])


def bytes_of(text: str) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """A tokenizer with a token for each byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    return fast, fast.encode(text)


def words_of(text: str) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """One with a token for each word, which drops the space before the first when it decodes."""
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(["?", *("▁" + w for w in text.split())]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    return fast, fast.encode(text)


@pytest.mark.parametrize(("make", "text"), [(bytes_of, "Ça va. é→😀 ok"), (words_of, "one two three two")])
def test_parts_join_to_the_whole_wherever_it_is_cut(make: Any, text: str) -> None:
    tokenizer, ids = make(text)

    def decode(rows: Any) -> list[str]:
        return list(tokenizer.batch_decode(rows))

    assert decode([ids]) == [text]
    for first in range(1, len(ids)):
        for second in range(first, len(ids)):
            found = parts(ids, [first, second], decode)
            assert len(found) == 3 and "".join(found) == text
            whole_letters = [len(decode([ids[:cut]])[0].rstrip("�")) for cut in (first, second)]
            assert [len(found[0]), len(found[0] + found[1])] == whole_letters
    assert parts(ids, [], decode) == [text]
    # Of single tokens a decoder makes something else.
    assert "".join(decode([[each] for each in ids])) != text


def test_values_are_on_the_scale_of_the_outcome(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrated unless told otherwise: shrunk to what they foretold, with sums that stay what they were."""
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: [4] if len(pieces) > 4 else [])
    raw: list[torch.Tensor] = []
    calibrated = module.credit.calibrated

    def spy(outcome: Any, values: Any, size: int) -> Any:
        raw.append(values)
        return calibrated(outcome, values, size)

    monkeypatch.setattr(module.credit, "calibrated", spy)
    chosen = StepCredit(credit="step_reward", reward="asked", outcome_max=SUCCESS)
    train(with_outcome(graded), extra={"step_credit": chosen, "step_reward": Asked()})
    known = torch.cat(raw)[~torch.cat(raw).isnan()] * 12  # letters that differ, of four; not times 2
    assert len(known) > 4 and set(known.round(decimals=4).tolist()) <= {1.0, 2.0, 3.0, 4.0}
