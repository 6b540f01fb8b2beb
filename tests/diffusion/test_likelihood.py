"""Log-probabilities of masked-diffusion completions against brute force, one token at a time."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from transformers import AutoModelForCausalLM

from engines.denoising import HIDDEN, Canvases, Denoiser, Schedule, joined
from engines.masked import forward_of
from selfrefine.diffusion.likelihood import Rows, hide_prompt, in_parts, order_of, token_logprobs
from selfrefine.stepwise.settings import Likelihood

MASK, PAD = 2, 0
SCHEDULE = Schedule(8, 4, 2)
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [14]]


@pytest.fixture(scope="module")
def model(masked: str) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(masked).eval()


@pytest.fixture(scope="module")
def rows(model: torch.nn.Module) -> Rows:
    sampler = Denoiser(forward_of(model), SCHEDULE, MASK, PAD, temperature=1.0)
    made = sampler.run(Canvases.blank(PROMPTS, 8, MASK, [(seed, 0) for seed in range(3)]))
    return rows_of(PROMPTS, made.ids, made.step_map)


def rows_of(prompts: list[list[int]], ids: torch.Tensor, step_map: torch.Tensor) -> Rows:
    whole, attention = joined(prompts, ids, PAD)
    width = whole.shape[1] - ids.shape[1]
    return Rows(whole[:, :width], attention[:, :width], ids, step_map, torch.arange(len(prompts)))


@torch.no_grad()
def brute_force(model: torch.nn.Module, prompt: list[int], canvas: list[int], order: list[int]) -> list[float]:
    found = []
    for place, token in enumerate(canvas):
        state = [t if order[i] < order[place] else MASK for i, t in enumerate(canvas)]
        logits = model(input_ids=torch.tensor([prompt + state])).logits[0, len(prompt) + place]
        found.append(float(logits.log_softmax(-1)[token]))
    return found


@pytest.mark.parametrize("likelihood", get_args(Likelihood))
def test_each_estimator_is_the_product_of_its_conditionals(
    model: torch.nn.Module, rows: Rows, likelihood: Likelihood
) -> None:
    order = order_of(rows, likelihood, SCHEDULE.block_length)
    with torch.no_grad():
        found, entropies = token_logprobs(forward_of(model), rows, order, 8, MASK)
    for row, prompt in enumerate(PROMPTS):
        wanted = brute_force(model, prompt, rows.canvas[row].tolist(), order[row].tolist())
        assert found[row].tolist() == pytest.approx(wanted, abs=1e-5)
    assert (entropies > 0).all()


def test_one_step_reads_no_token_of_the_completion_and_no_width(model: torch.nn.Module, rows: Rows) -> None:
    order = order_of(rows, "one_step", SCHEDULE.block_length)
    with torch.no_grad():
        whole, _ = token_logprobs(forward_of(model), rows, order, 8, MASK)
        narrow, _ = token_logprobs(forward_of(model), rows, order, 5, MASK)
        other = Rows(rows.prompt, rows.prompt_mask, rows.canvas.roll(1, 1), rows.step_map, rows.uid)
        moved, _ = token_logprobs(forward_of(model), other, order, 8, MASK)
        # The same tokens at the same places are as likely as before, whatever stands beside them.
        mixed = rows.canvas.clone()
        mixed[:, :3] = other.canvas[:, :3]
        both, _ = token_logprobs(
            forward_of(model), Rows(rows.prompt, rows.prompt_mask, mixed, rows.step_map, rows.uid), order, 8, MASK
        )
    assert torch.allclose(whole[:, :5], narrow, atol=1e-6)
    assert torch.allclose(both[:, :3], moved[:, :3], atol=1e-6) and torch.allclose(both[:, 3:], whole[:, 3:], atol=1e-6)


def test_what_was_never_revealed_weighs_nothing_and_hides_behind_a_mask(model: torch.nn.Module, rows: Rows) -> None:
    ended = rows.step_map.clone()
    ended[:, 4:] = HIDDEN
    short = Rows(rows.prompt, rows.prompt_mask, rows.canvas, ended, rows.uid)
    for likelihood in get_args(Likelihood):
        order = order_of(short, likelihood, SCHEDULE.block_length)
        with torch.no_grad():
            found, _ = token_logprobs(forward_of(model), short, order, 8, MASK)
            whole = order_of(rows, likelihood, SCHEDULE.block_length)
            wanted, _ = token_logprobs(forward_of(model), rows, whole, 8, MASK)
        assert (found[:, 4:] == 0).all()
        # Blocks go left to right, so the first is predicted without the second either way.
        assert torch.allclose(found[:, :4], wanted[:, :4], atol=1e-6)


def test_gradients_flow_to_each_row_alone(model: torch.nn.Module, rows: Rows) -> None:
    """The log-probability of one row has the gradient that it has on its own."""
    order = order_of(rows, "trajectory", SCHEDULE.block_length)
    weight = model.get_input_embeddings().weight  # type: ignore[operator]

    def gradient(part: Rows, order: torch.Tensor, row: int) -> torch.Tensor:
        model.zero_grad()
        found, _ = token_logprobs(forward_of(model), part, order, 8, MASK)
        found[row].sum().backward()
        return weight.grad.clone()

    for row in range(3):
        part = slice(row, row + 1)
        assert torch.allclose(gradient(rows, order, row), gradient(rows.part(part), order[part], 0), atol=1e-4)


def test_prompt_masks_are_a_function_of_seed_row_and_iteration(rows: Rows) -> None:
    before = torch.random.get_rng_state()
    masks = {
        (uid, inner): hide_prompt(rows_at(rows, uid), 0.5, inner, 7, MASK).prompt for uid in (0, 9) for inner in (0, 1)
    }
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(hide_prompt(rows_at(rows, 9), 0.5, 1, 7, MASK).prompt, masks[9, 1])
    assert len({tuple(mask.flatten().tolist()) for mask in masks.values()}) == 4
    assert torch.equal(hide_prompt(rows, 0.0, 0, 7, MASK).prompt, rows.prompt)
    # A longer neighbour, and so more padding, moves no mask; pads are never hidden.
    alone = hide_prompt(rows_of(PROMPTS[:1], rows.canvas[:1], rows.step_map[:1]), 0.5, 0, 7, MASK).prompt
    together = hide_prompt(rows, 0.5, 0, 7, MASK).prompt
    assert torch.equal(together[0, -3:], alone[0]) and (together[0, :2] == PAD).all()


def test_the_share_of_hidden_prompt_tokens_is_the_one_asked_for() -> None:
    prompts = [[5] * 200 for _ in range(50)]
    ids = torch.full((50, 4), 9)
    hidden = hide_prompt(rows_of(prompts, ids, torch.zeros(50, 4, dtype=torch.int16)), 0.15, 0, 1, MASK).prompt == MASK
    assert 0.14 < hidden.float().mean() < 0.16


def test_work_in_parts_is_the_work_on_all(model: torch.nn.Module, rows: Rows) -> None:
    def work(part: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        return token_logprobs(forward_of(model), part, order_of(part, "blocks", 4), 8, MASK)

    with torch.no_grad():
        assert torch.allclose(in_parts(rows, 2, work)[0], work(rows)[0], atol=1e-6)


def rows_at(rows: Rows, first: int) -> Rows:
    uid = torch.arange(first, first + len(rows.uid))
    return Rows(rows.prompt, rows.prompt_mask, rows.canvas, rows.step_map, uid)
