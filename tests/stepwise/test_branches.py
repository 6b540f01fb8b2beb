"""Branches are sampled in calls no larger than the round's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from selfrefine.stepwise import trainer as module
from selfrefine.stepwise.branches import Branches, Branching
from selfrefine.stepwise.settings import StepCredit
from selfrefine.stepwise.trainer import StepCreditTrainer
from tests.stepwise.conftest import PROMPTS

Train = Callable[..., Any]
ROWS, MOST = 8, 12


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts behind every token."""
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(1, len(pieces))))


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("branches", [3, 10])
def test_no_call_has_more_rows_than_the_round_and_every_branch_comes_back(train: Train, branches: int) -> None:
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
                assert len(each.completions) == branches
                for ids in each.completions:
                    assert ids[:cut] == prefix and cut < len(ids) <= MOST
                    returned[(*prompt, *prefix), tuple(ids[cut:])] += 1
            return found

    train(Spied, extra={"step_credit": StepCredit(cuts=2, branches=branches)})
    assert all(call <= ROWS for each in sizes for call in each)
    assert any(len(each) > 3 for each in sizes)
    assert {call for each in sizes for call in each[:-1]} == {ROWS}, "only the last call of a round is smaller"
    # What a row was sampled past its limit, for longer ones of its call, is cut off.
    cut_off: Counter[Any] = Counter()
    for (begun, more), count in sampled.items():
        rooms = {len(kept) for other, kept in returned if other == begun and kept == more[: len(kept)]}
        cut_off[begun, more[: max(rooms)]] += count
    assert cut_off == returned


def test_without_chance_no_split_changes_a_branch(train: Train) -> None:
    trainer = train(StepCreditTrainer, steps=1, extra={"step_credit": StepCredit(credit="outcome")})
    trainer.generation_config.top_k = 1
    begun = [
        Branching(prompt, list(range(first, first + kept)))
        for first, (prompt, kept) in enumerate(product(PROMPTS, (5, 1, 9)), 2)
    ]
    whole = Branches(trainer).sample(begun, 2, 1000)
    assert len({tuple(ids) for branches in whole for ids in branches}) == len(begun)
    for at_once in (1, 5, 8):
        assert Branches(trainer).sample(begun, 2, at_once) == whole
