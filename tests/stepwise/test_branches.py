"""Branches are sampled in calls no larger than the round's own, and a reward is told of them as of a round's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from selfrefine.stepwise import branches
from selfrefine.stepwise import trainer as module
from selfrefine.stepwise.branches import Branches, Branching
from selfrefine.stepwise.settings import StepCredit
from selfrefine.stepwise.trainer import Continued, StepCreditTrainer
from tests.stepwise.conftest import PROMPTS

Train = Callable[..., Any]
ROWS, MOST = 8, 12


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts behind every token."""
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(1, len(pieces))))


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("count", [3, 10])
def test_no_call_has_more_rows_than_the_round_and_every_branch_comes_back(train: Train, count: int) -> None:
    """Each goes on from its own prompt and prefix; with more branches of one cut than a call takes, too."""
    sizes: list[list[int]] = []
    sampled: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    returned: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()

    class Spied(StepCreditTrainer):
        def _generate(self, prompts: Any) -> Any:
            sizes.append([])
            return super()._generate(prompts)

        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            found = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            sizes[-1].append(len(prompt_ids))
            if len(sizes[-1]) > 1:
                sampled.update((tuple(ids), tuple(more)) for ids, more in zip(prompt_ids, found[0], strict=True))
            return found

        def _continued(self, kept: Any, wanted: Any) -> Any:
            found = super()._continued(kept, wanted)
            for (row, cut), each in zip(wanted, found, strict=True):
                prompt = self.processing_class(kept.prompts[row])["input_ids"]
                prefix = list(kept.completion_ids[row][:cut])
                assert len(each.completions) == count
                for ids in each.completions:
                    assert ids[:cut] == prefix and cut < len(ids) <= MOST
                    returned[(*prompt, *prefix), tuple(ids[cut:])] += 1
            return found

    train(Spied, extra={"step_credit": StepCredit(cuts=2, branches=count)})
    assert all(call <= ROWS for each in sizes for call in each)
    assert any(len(each) > 3 for each in sizes)
    assert {call for each in sizes for call in each[:-1]} == {ROWS}, "only the last call of a round is smaller"
    # What a row was sampled past its limit, for longer ones of its call, is cut off.
    cut_off: Counter[Any] = Counter()
    for (begun, more), times in sampled.items():
        rooms = {len(kept) for other, kept in returned if other == begun and kept == more[: len(kept)]}
        cut_off[begun, more[: max(rooms)]] += times
    assert cut_off == returned


def test_without_chance_no_split_changes_a_branch(train: Train) -> None:
    trainer = train(StepCreditTrainer, steps=1, extra={"step_credit": StepCredit(credit="outcome")})
    trainer.generation_config.top_k = 1
    begun = [
        Branching(prompt, list(range(first, first + kept)))
        for first, (prompt, kept) in enumerate(product(PROMPTS, (5, 1, 9)), 2)
    ]
    whole = Branches(trainer).sample(begun, 2, 1000)
    assert len({tuple(ids) for each in whole for ids in each}) == len(begun)
    for at_once in (1, 5, 8):
        assert Branches(trainer).sample(begun, 2, at_once) == whole


@pytest.mark.parametrize("lora", [False, True])
def test_what_branches_of_a_cut_have_in_common_is_read_once(
    lora: bool, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = train(StepCreditTrainer, steps=1, lora=lora, extra={"step_credit": StepCredit(credit="outcome")})
    begun = [Branching(prompt, list(range(5, 10 - first))) for first, prompt in enumerate(PROMPTS, 1)]
    rows: list[int] = []
    trainer.model.get_input_embeddings().register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))

    def sampled() -> tuple[list[list[list[int]]], list[int]]:
        rows.clear()
        torch.manual_seed(5)
        return Branches(trainer).sample(begun, 3, 1000), list(rows)

    shared, passes = sampled()
    assert passes[0] == 4 and set(passes[1:]) == {12}
    monkeypatch.setattr(branches, "can_share", lambda model: False)
    alone, passes = sampled()
    assert set(passes) == {12}
    assert shared == alone
    assert len({tuple(ids) for each in shared for ids in each}) > 6, "branches of a cut differ"


# ── What a reward is told ─────────────────────────────────────────────────────────────────────────────────────────

CHAT = "{% for turn in messages %}{{ turn['content'] }}{% endfor %}{% if add_generation_prompt %}..={% endif %}"
TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "..",
    "fields": {
        "reasoning_content": {"open": "=", "close": "e", "content": "text"},
        "content": {"close": "<eos>", "content": "text"},
    },
}
"""Reasoning begins in the prompt, with `=`, and ends at the first e."""


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("form", ["plain", "turns", "response template"])
def test_a_reward_is_told_of_a_branch_as_of_a_completion_of_the_same_tokens(tiny: str, train: Train, form: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = CHAT
    tokenizer.response_template = TEMPLATE if form == "response template" else None
    prompts = PROMPTS if form == "plain" else [[{"role": "user", "content": each}] for each in PROMPTS]
    of_rounds: list[tuple[Any, list[int], Any]] = []
    of_branches: list[tuple[Any, list[int], Any]] = []

    def told(prompts: Any, completions: Any, *, completion_ids: Any, log_extra: Any, **columns: Any) -> list[float]:
        branches = len(log_extra.__code__.co_names) == 0  # only they have nowhere to log to
        seen = zip(prompts, map(list, completion_ids), completions, strict=True)
        (of_branches if branches else of_rounds).extend(seen)
        return [float(sum(ids) % 2) for ids in completion_ids]

    class Same(StepCreditTrainer):
        """Its branches are the completion itself."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "reward_funcs": [told]})

        def _continued(self, kept: Any, wanted: Any) -> Any:
            return [Continued([list(kept.completion_ids[row])] * 2, 0) for row, _ in wanted]

    train(Same, prompts=prompts, extra={"step_credit": StepCredit(), "processing_class": tokenizer})
    assert len(of_branches) > ROWS
    assert all(each in of_rounds for each in of_branches)
    if form == "response template":
        thoughts = [completion[0].get("reasoning_content") for _, _, completion in of_branches]
        assert any(thoughts) and any(completion[0]["content"] for _, _, completion in of_branches)


@pytest.mark.usefixtures("everywhere")
def test_a_step_reward_is_told_of_the_round_s_completions(tiny: str, train: Train) -> None:
    """Parsed, where the tokenizer has a template; its parts are those of the whole text."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template, tokenizer.response_template = CHAT, TEMPLATE
    known: list[tuple[list[int], Any]] = []
    asked: list[tuple[list[int], Any]] = []

    class Spied(StepCreditTrainer):
        def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, ids: Any) -> Any:
            known.extend(zip(map(list, ids), completions, strict=True))
            return super()._calculate_rewards(inputs, prompts, completions, ids)

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "reward_funcs": [odd]})

    def odd(prompts: Any, completions: Any, *, completion_ids: Any, **columns: Any) -> list[float]:
        return [float(sum(ids) % 2) for ids in completion_ids]

    def half(prompts: Any, completions: Any, steps: Any, *, completion_ids: Any, **columns: Any) -> Any:
        asked.extend(zip(map(list, completion_ids), completions, strict=True))
        texts = tokenizer.batch_decode(completion_ids, skip_special_tokens=True)
        assert ["".join(parts) for parts in steps] == texts
        return [[0.5] * len(parts) for parts in steps]

    train(
        Spied, prompts=[[{"role": "user", "content": each}] for each in PROMPTS],
        extra={
            "step_credit": StepCredit(credit="step_reward", reward="half"), "step_reward": half,
            "processing_class": tokenizer,
        },
    )  # fmt: skip
    assert asked and all(each in known for each in asked)
    assert any(completion[0].get("reasoning_content") for _, completion in asked)
