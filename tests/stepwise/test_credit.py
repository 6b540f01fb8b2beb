"""Credit by its closed forms, and against the exact gradient of a policy small enough to enumerate."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from selfrefine.stepwise.credit import (
    calibrated,
    filter_groups,
    group_mean,
    mean_of_others,
    open_rows,
    pooled,
    progress,
    segments_by_position,
    segments_by_step,
    spread,
    telescope,
    undecided,
    without_holes,
)
from selfrefine.stepwise.cuts import boundaries, draw, flip
from selfrefine.stepwise.settings import StepCredit

NAN = float("nan")


def rows(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("right", "value", "total"), [(4, 0.0, -0.6), (4, 1.0, 0.4)])
def test_eq_5_of_an_easy_group(right: int, value: float, total: float) -> None:
    """p = .8 and V = 0: a right answer that was luck is pushed down."""
    outcome = rows(*[1.0] * right, *[0.0] * (5 - right))
    advantages = outcome - group_mean(outcome, 5)
    found = progress(advantages, outcome, rows(*[value] * 5), 5)
    assert found[0].item() == pytest.approx(total)
    assert torch.equal(found[right:], advantages[right:]), "rows that are not open are not touched"


def test_eq_5_of_a_hard_group() -> None:
    """p = .25 and V = 1: 1.5."""
    outcome = rows(1, 0, 0, 0)
    advantages = outcome - group_mean(outcome, 4)
    assert progress(advantages, outcome, rows(1, 1, 1, 1), 4)[0].item() == pytest.approx(1.5)


def test_no_weight_changes_no_bit_and_a_value_that_is_missing_gives_no_credit() -> None:
    outcome, advantages = rows(1, 0, 1, 0), rows(0.3, -0.1, 0.7, -0.9)
    assert progress(advantages, outcome, rows(1, 1, 1, 1), 4, weight=0) is advantages
    assert torch.equal(progress(advantages, outcome, rows(NAN, 1, NAN, 1), 4), advantages)


def test_credit_is_divided_by_what_the_advantages_were() -> None:
    outcome = rows(1, 0, 0, 0)
    scale = torch.full((4,), 0.5, dtype=torch.float64)
    advantages = (outcome - group_mean(outcome, 4)) / scale
    found = progress(advantages, outcome, rows(1, 1, 1, 1), 4, scale=scale)
    assert found[0].item() == pytest.approx(2 * 1.5)


def test_the_end_of_a_trace_adds_its_own_outcome() -> None:
    """V(x_T) of a finished row is its outcome: the credit is c − mean, nothing new."""
    outcome = rows(1, 1, 0, 0, 1, 0)
    advantages = outcome - group_mean(outcome, 6)
    found = progress(advantages, outcome, outcome, 6)
    assert torch.allclose(found, torch.where(advantages > 0, 2 * advantages, advantages))


def test_credit_at_the_start_is_zero_in_the_mean() -> None:
    """V(x_0) of fresh branches has the group's own expectation: over many draws, ungated, nothing is added."""
    generator = torch.Generator().manual_seed(0)
    draws, size = 10_000, 4
    outcome = torch.bernoulli(torch.full((draws * size,), 0.3), generator=generator).double()
    values = torch.bernoulli(torch.full((draws * size, 2), 0.3), generator=generator).double().mean(1)
    added = progress(torch.zeros_like(outcome), outcome, values, size, gate="none")
    error = added.std() / len(added) ** 0.5
    assert abs(added.mean()) < 4 * error


def test_right_rows_of_random_cuts_look_better_than_they_are() -> None:
    """E[V | right] = E[V²] / E[V] ≥ E[V]: why a gate on success biases Eq. 5."""
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(200_000, generator=generator).double()
    right = torch.bernoulli(values, generator=generator).bool()
    assert values[right].mean().item() == pytest.approx((values.square().mean() / values.mean()).item(), abs=2e-3)
    assert values[right].mean() > values.mean() + 0.1


def test_decided_groups_open_nothing_and_weigh_nothing() -> None:
    outcome = rows(0, 0, 0, 1, 1, 1, 0, 1, NAN)
    form = rows(0.5, 0, 0, 0.5, 0, 0, 0, 0, 0)
    reward = outcome.nan_to_num(0) + form
    advantages = reward - group_mean(reward, 3)
    assert undecided(outcome, 3).tolist() == [False] * 6 + [True] * 3
    # All answers of the first group are wrong, yet its well formed one has a positive advantage: that is the fault.
    assert advantages[0] > 0 and open_rows(advantages, outcome, 3, "advantage")[0]
    assert not open_rows(advantages, outcome, 3, "success")[:6].any()
    kept = filter_groups(advantages, outcome, 3)
    assert kept.tolist() == [0.0] * 6 + [advantages[6].item(), advantages[7].item(), 0.0]
    tokens = filter_groups(advantages[:, None].expand(9, 4), outcome, 3)
    assert torch.equal(tokens, kept[:, None].expand(9, 4))


@pytest.mark.parametrize("cuts", [0, 1, 2, 5])
def test_segments_sum_to_the_outcome_less_the_others(cuts: int) -> None:
    generator = torch.Generator().manual_seed(cuts)
    outcome = torch.bernoulli(torch.full((12,), 0.5), generator=generator).double()
    values = torch.rand(12, cuts, generator=generator).double()
    credit = telescope(outcome, values, 4)
    assert credit.shape == (12, cuts + 1)
    assert torch.allclose(credit.sum(1), outcome - mean_of_others(outcome, 4))
    if cuts == 0:
        assert torch.allclose(credit[:, 0], 4 / 3 * (outcome - group_mean(outcome, 4)))


def test_a_cut_without_a_value_joins_its_segments() -> None:
    outcome = rows(1, 0)
    values = torch.tensor([[0.2, NAN, 0.7], [NAN, NAN, NAN]], dtype=torch.float64)
    credit = telescope(outcome, values, 2)
    assert torch.allclose(credit[0], rows(0.2 - 0, 0.5, 0.5, 0.3))
    assert torch.allclose(credit[1], rows(-1, -1, -1, -1))


def test_calibrated_values_are_the_regression_inside_groups() -> None:
    """The slope against statsmodels', with a dummy for each group; the sum over segments stays what it was."""
    import numpy as np
    from statsmodels.api import OLS

    generator = torch.Generator().manual_seed(1)
    outcome = torch.bernoulli(torch.full((24,), 0.5), generator=generator).double()
    values = 0.4 * outcome[:, None] + torch.rand(24, 2, generator=generator).double()
    values[5, 0] = NAN
    found = calibrated(outcome, values, 4)
    known = np.arange(24) != 5
    dummies = np.kron(np.eye(6), np.ones((4, 1)))
    design = np.column_stack([values[:, 0].numpy(), dummies])[known]
    slope = OLS(outcome.numpy()[known], design).fit().params[0]
    apart = values[:, 0] - mean_of_others(values[:, 0], 4)
    expected = mean_of_others(outcome, 4) + slope * apart
    assert torch.allclose(found[:, 0], expected, equal_nan=True) and found[5, 0].isnan()
    summed = telescope(outcome, found, 4).sum(1)  # but row 5, whose first two segments are one
    assert torch.allclose(summed[known], (outcome - mean_of_others(outcome, 4))[known])
    # What all rows of a group have too much of is no credit.
    shifted = values + torch.arange(6.0, dtype=torch.float64).repeat_interleave(4)[:, None]
    assert torch.allclose(calibrated(outcome, shifted, 4), found, equal_nan=True)


def test_values_that_foretell_nothing_leave_the_outcome_to_all_parts() -> None:
    outcome = rows(1, 0, 1, 0)
    for useless in ([[0.5]] * 4, [[0.0], [1.0], [0.0], [1.0]]):
        values = calibrated(outcome, torch.tensor(useless, dtype=torch.float64), 4)
        assert values.isnan().all()
        credit = telescope(outcome, values, 4)
        assert torch.equal(credit[:, 0], credit[:, 1])
        assert torch.equal(credit[:, 0], outcome - mean_of_others(outcome, 4))


def test_calibrated_guesses_are_nearer_to_the_true_advantage_than_the_outcome_is() -> None:
    """Four parts, each right in 3 of 5 traces; a guess knows of what is right so far, but not of what is to come."""
    generator = torch.Generator().manual_seed(0)
    right = torch.bernoulli(torch.full((4000, 4), 0.6), generator=generator).double()
    so_far = right.cumprod(1)
    outcome, guesses = so_far[:, 3], so_far[:, :3]
    value = torch.cat([torch.full((4000, 1), 0.6**4), so_far * 0.6 ** torch.tensor([3, 2, 1, 0])], 1)
    truth = value.diff(dim=1)

    def error(credit: Tensor) -> float:
        return float((credit - truth).square().mean())

    plain = error((outcome - mean_of_others(outcome, 8))[:, None].expand(-1, 4))
    raw = error(telescope(outcome, guesses, 8))
    found = error(telescope(outcome, calibrated(outcome, guesses, 8), 8))
    assert found < plain / 4 and found < raw / 4


def test_a_row_that_could_not_be_scored_keeps_its_advantage() -> None:
    outcome = rows(1, NAN, 0)
    credit = telescope(outcome, torch.full((3, 1), 0.5, dtype=torch.float64), 3)
    assert mean_of_others(outcome, 3).tolist() == [0.0, 0.5, 1.0]
    segments = torch.tensor([[0, 1, -1]] * 3)
    advantages = rows(0.5, 0.25, -0.5)
    found = spread(advantages, outcome, credit, segments, 3)
    assert found[1].tolist() == [0.25, 0.25, 0.0]
    assert torch.isfinite(found).all()


def test_a_part_without_credit_keeps_the_row_s_advantage_and_the_others_do_not() -> None:
    outcome = torch.tensor([1.0, 0.0])
    advantages = outcome - 0.5
    found = spread(advantages, outcome, torch.tensor([[0.25, NAN], [NAN, -1.0]]), torch.tensor([[0, 1, -1]] * 2), 2)
    assert found.tolist() == [[0.25, 0.5, 0.0], [-0.5, -1.0, 0.0]]


def test_other_rewards_stay_spread_evenly() -> None:
    outcome, form = rows(1, 0, 0, 1), rows(0.5, 0.5, 0, 0)
    scale = torch.full((4,), 0.7, dtype=torch.float64)
    reward = 2 * outcome + form
    advantages = (reward - group_mean(reward, 4)) / scale
    values = torch.tensor([[0.5], [0.5], [0.0], [1.0]], dtype=torch.float64)
    credit = telescope(outcome, values, 4)
    segments = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 1, -1], [0, 0, 1]])
    found = spread(advantages, outcome, credit, segments, 4, weight=2, scale=scale)
    of_form = (form - group_mean(form, 4)) / scale
    expected = of_form[:, None] + 2 * credit.gather(1, segments.clamp(min=0)) / scale[:, None]
    assert torch.allclose(found, torch.where(segments < 0, 0, expected))


def test_every_token_has_one_segment() -> None:
    mask = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]])
    cuts = torch.tensor([[2, 4], [-1, 1]])
    assert segments_by_position(cuts, mask).tolist() == [[0, 0, 1, 1, 2, -1], [0, 2, 2, -1, -1, -1]]
    assert segments_by_position(cuts[:, :0], mask).tolist() == [[0] * 5 + [-1], [0] * 3 + [-1] * 3]
    step_map = torch.tensor([[3, 0, 1, 2, 3, 2], [1, 0, 0, 5, 5, 5]])
    assert segments_by_step(step_map, cuts, mask).tolist() == [[1, 0, 0, 1, 1, -1], [2, 0, 0, -1, -1, -1]]


# A policy over three binary tokens whose logits depend on the prefix: 7 parameters, 8 traces, all of them enumerated.
TRACES = list(product((0, 1), repeat=3))
PREFIXES = [prefix for length in range(3) for prefix in product((0, 1), repeat=length)]
REWARD = {trace: float(trace in {(0, 0, 0), (1, 0, 1), (1, 1, 1)}) for trace in TRACES}


def log_probs(theta: Tensor, trace: tuple[int, ...]) -> list[Tensor]:
    found = []
    for place, token in enumerate(trace):
        logit = theta[PREFIXES.index(trace[:place])]
        found.append(torch.nn.functional.logsigmoid(logit if token else -logit))
    return found


def value(theta: Tensor, prefix: tuple[int, ...]) -> Tensor:
    """The exact expected outcome of a trace that begins with a prefix."""
    total = torch.zeros((), dtype=torch.float64)
    for trace in TRACES:
        if trace[: len(prefix)] == prefix:
            total = (
                total
                + torch.stack(log_probs(theta, trace)[len(prefix) :] or [torch.zeros(())]).sum().exp() * REWARD[trace]
            )
    return total


def surrogate(theta: Tensor, credit: str) -> Tensor:
    """The expected loss gradient of a scheme, over all traces, with groups large enough that their mean is exact."""
    mean = value(theta, ()).detach()
    total = torch.zeros((), dtype=torch.float64)
    for trace in TRACES:
        steps = log_probs(theta, trace)
        chance = torch.stack(steps).sum().exp().detach()
        outcome = torch.tensor(REWARD[trace], dtype=torch.float64)
        values = [value(theta, trace[:length]).detach() for length in (1, 2)]
        if credit == "segments":
            line = [mean, *values, outcome]
            gained = [after - before for before, after in pairwise(line)]
            total = total + chance * sum(g * s for g, s in zip(gained, steps, strict=True))
        else:
            advantage = outcome - mean
            if credit == "progress" and advantage > 0:
                advantage = advantage + sum(each - mean for each in values) / 2
            total = total + chance * advantage * torch.stack(steps).sum()
    return total


@pytest.mark.parametrize(("credit", "exact"), [("outcome", True), ("segments", True), ("progress", False)])
def test_gradients_of_a_policy_that_can_be_enumerated(credit: str, exact: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    theta = torch.randn(len(PREFIXES), generator=generator, dtype=torch.float64).requires_grad_()
    true = torch.autograd.grad(value(theta, ()), theta)[0]
    found = torch.autograd.grad(surrogate(theta, credit), theta)[0]
    assert (torch.allclose(found, true, rtol=0, atol=1e-12)) is exact
    if not exact:
        cosine = torch.nn.functional.cosine_similarity(found, true, dim=0).item()
        assert 0.9 < cosine < 1 - 1e-4, "biased, though not by much"


@pytest.mark.parametrize("tossed", [True, False])
def test_cuts_are_free_of_what_follows_where_coins_are_tossed(tossed: bool) -> None:
    """Of a policy whose 1 is a full stop. Under each seed a coin makes one rule, and its gradient is the exact one;
    a draw among the places of a finished trace does not."""
    generator = torch.Generator().manual_seed(3)
    theta = torch.randn(len(PREFIXES), generator=generator, dtype=torch.float64).requires_grad_()
    true = torch.autograd.grad(value(theta, ()), theta)[0]
    apart, used = [], set()
    for seed in range(12):
        total = torch.zeros((), dtype=torch.float64)
        for trace in TRACES:
            steps = log_probs(theta, trace)
            places = boundaries(["a."[token] for token in trace], gap=1)
            cuts = flip(places, 1, 0.5, seed) if tossed else draw(places, 1, seed)
            used.add(tuple(cuts))
            line = [value(theta, trace[:cut]).detach() for cut in (0, *cuts)] + [torch.tensor(REWARD[trace])]
            gained = [after - before for before, after in pairwise(line)]
            parts = [sum(cut <= place for cut in cuts) for place in range(3)]
            chance = torch.stack(steps).sum().exp().detach()
            total = total + chance * sum(gained[part] * step for part, step in zip(parts, steps, strict=True))
        apart.append((torch.autograd.grad(total, theta)[0] - true).abs().max().item())
    assert used == {(), (1,), (2,)}
    assert (max(apart) < 1e-12) is tossed, apart


@pytest.mark.parametrize("scheme", ["as they come", "pooled", "shrunk at both ends"])
def test_the_gradient_of_noisy_values_is_exact_on_average_unless_what_was_reached_is_shrunk(scheme: str) -> None:
    """Two branches at a cut behind the first of three tokens; 1,600 batches of 8 groups of 8."""
    generator = torch.Generator().manual_seed(3)
    theta = torch.randn(len(PREFIXES), generator=generator, dtype=torch.float64).requires_grad_()
    true = torch.autograd.grad(value(theta, ()), theta)[0]
    steps = [log_probs(theta, trace) for trace in TRACES]
    scores = torch.stack(
        [torch.stack([torch.autograd.grad(each, theta, retain_graph=True)[0] for each in row]) for row in steps]
    )
    chances = torch.stack([torch.stack(row).sum().exp() for row in steps]).detach()
    outcomes = torch.tensor([REWARD[trace] for trace in TRACES], dtype=torch.float64)
    behind_first = torch.stack([value(theta, trace[:1]) for trace in TRACES]).detach()
    found = []
    for _ in range(1600):
        drawn = torch.multinomial(chances, 64, replacement=True, generator=generator)
        outcome = outcomes[drawn]
        twice = torch.full((64,), 2, dtype=torch.float64)
        values = (torch.binomial(twice, behind_first[drawn], generator=generator) / 2)[:, None]
        shrunk = calibrated(outcome, values, 8)
        reached = {"as they come": values, "pooled": pooled(outcome, values, 2), "shrunk at both ends": shrunk}[scheme]
        credit = telescope(outcome, reached, 8, values if scheme == "as they come" else shrunk)
        tokens = credit.gather(1, torch.tensor([[0, 1, 1]]).expand(64, 3))
        found.append((tokens[:, :, None] * scores[drawn]).sum(1).mean(0))
    gradients = torch.stack(found)
    apart = (gradients.mean(0) - true) / (gradients.std(0) / len(found) ** 0.5)
    share = float(gradients.mean(0)[0] / true[0])  # of the one number that the first token's logit is
    if scheme == "shrunk at both ends":
        assert apart[0].abs() > 10 and share < 0.6
    else:
        assert apart.abs().max() < 4 and share == pytest.approx(1, abs=0.1)


def test_guesses_are_no_branches() -> None:
    with pytest.raises(ValueError, match="calibrate: baselines wants branches, and one_step takes none"):
        StepCredit(credit="one_step", calibrate="baselines")


def test_a_reward_that_a_row_lacks_speaks_neither_for_it_nor_against() -> None:
    nan = torch.nan
    rewards = torch.tensor([[1, 1], [0, nan], [0, 0], [1, nan], [nan, nan], [1, nan], [0, nan], [nan, nan]])
    filled = without_holes(rewards, 4)
    assert filled[:4].tolist() == [[1, 1], [0, 0.5], [0, 0], [1, 0.5]]
    assert filled[4:].isnan().tolist() == [[True, True], [False, True], [False, True], [True, True]]
    known = filled[:4, 1] - filled[:4, 1].mean()
    assert known.tolist() == [0.5, 0, -0.5, 0], "no advantage by it, where 0 in its place would be one against"
    whole = torch.rand(8, 3)
    assert torch.equal(without_holes(whole, 4), whole)
