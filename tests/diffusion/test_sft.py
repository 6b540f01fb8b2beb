"""The loss of masked-diffusion models against its exact expectation, and a model that learns to answer."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import kstest

from engines.base import Decoding, EngineError, Request
from engines.diffusion import DiffusionEngine
from engines.settings import DiffusionSettings
from selfrefine.diffusion.sft import LEAST, hide, masked_loss, shares
from selfrefine.sft import Example, SftSettings, fine_tune
from selfrefine.training import TrainingStopped

MASK = 2
EXAMPLES = [
    Example([{"role": "user", "content": text}], text[::-1] + "0" * n, None) for n, text in enumerate(["ab", "cde"])
]


def test_shares_are_uniform_alone_and_even_together() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([shares(8, generator) for _ in range(2000)])
    for row in range(8):
        assert kstest(((drawn[:, row] - LEAST) / (1 - LEAST)).numpy(), "uniform").pvalue > 1e-3
    spaced = drawn.sort(dim=1).values.diff(dim=1)
    assert torch.allclose(spaced, torch.full_like(spaced, (1 - LEAST) / 8), atol=1e-5)


def test_only_answers_are_hidden_and_with_the_share_of_the_row() -> None:
    ids = torch.full((3, 4000), 9)
    answer = torch.zeros(3, 4000, dtype=torch.bool)
    answer[:, 1000:] = True
    hidden = hide(ids, answer, torch.tensor([0.1, 0.5, 0.9]), MASK, torch.Generator().manual_seed(1)) == MASK
    assert not hidden[:, :1000].any()
    assert hidden[:, 1000:].float().mean(1).tolist() == pytest.approx([0.1, 0.5, 0.9], abs=0.03)


def test_the_loss_has_its_exact_expectation() -> None:
    """Over all 2³ ways to hide a three-token answer: E Σ −log p / share = the sum over tokens of their mean loss."""
    torch.manual_seed(0)
    table = {state: torch.randn(5, 6) for state in itertools.product([0, 1], repeat=3)}  # logits seen from a state
    ids, answer = torch.tensor([[4, 5, 1, 3, 2]]), torch.tensor([[False, False, True, True, True]])
    for share in (0.2, 0.7):
        exact = 0.0
        for state, logits in table.items():
            chance = math.prod(share if bit else 1 - share for bit in state)
            nats = -logits.log_softmax(-1)[torch.arange(5), ids[0]][2:]
            exact += chance * float((nats * torch.tensor(state)).sum()) / share / 3
        found = 0.0
        for state, logits in table.items():
            hidden = torch.tensor([[False, False, *map(bool, state)]])
            chance = math.prod(share if bit else 1 - share for bit in state)
            found += chance * float(masked_loss(logits[None], ids, hidden, answer, torch.tensor([share])))
        assert found == pytest.approx(exact, rel=1e-5)


def settings(steps: int, **changed: object) -> SftSettings:
    common = {"steps": steps, "batch_size": 4, "learning_rate": 1e-2, "canvas": 8, "save_every": 5}
    return SftSettings.model_validate(common | changed)


def test_a_model_learns_its_answers_and_where_they_end(masked: str, tmp_path: Path) -> None:
    numbers = fine_tune(EXAMPLES * 4, masked, tmp_path / "out", tmp_path / "saves", settings(150), seed=0)
    assert numbers["loss"] < 0.3
    engine = DiffusionEngine.open(DiffusionSettings(block_length=4, steps_per_block=4), str(tmp_path / "out"))
    requests = [Request(str(n), e.messages, None, Decoding(8)) for n, e in enumerate(EXAMPLES)]
    made = list(engine.generate(requests))
    assert [each.text for each in made] == [e.completion for e in EXAMPLES]
    assert {each.finish for each in made} == {"stop"}


def test_a_stopped_training_ends_with_the_same_bits(masked: str, tmp_path: Path) -> None:
    fine_tune(EXAMPLES * 4, masked, tmp_path / "whole", tmp_path / "a", settings(8), seed=0)
    asked = 0

    def after_five() -> bool:
        nonlocal asked
        asked += 1
        return asked == 5

    with pytest.raises(TrainingStopped):
        fine_tune(
            EXAMPLES * 4, masked, tmp_path / "resumed", tmp_path / "b", settings(8), seed=0, should_stop=after_five
        )
    fine_tune(EXAMPLES * 4, masked, tmp_path / "resumed", tmp_path / "b", settings(8), seed=0)
    name = "model.safetensors"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()


def test_an_answer_that_does_not_fit_is_refused(masked: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="an answer has 5 tokens, more than canvas 3; give canvas=5"):
        fine_tune(EXAMPLES, masked, tmp_path / "out", tmp_path / "saves", settings(2, canvas=3), seed=0)
