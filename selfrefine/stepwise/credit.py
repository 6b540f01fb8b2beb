"""From outcomes and values of partial traces to advantages: pure functions of tensors, blind to model and loss.

B rows are groups of G completions of one prompt, a group's rows side by side; where several processes share a group,
the tensors are those of all processes. `outcome` (B,) is success in [0, 1]; NaN where it could not be scored, and then
the row neither enters a mean nor gets credit. A row's trace has K cuts; `values` (B, K) hold the estimated success of
a trace that is resumed at each cut, NaN where there is no cut or none of its branches could be scored.

Source: arXiv 2510.01544 (the process reward and Eq. 5); telescoped credit over segments, and its calibration, is ours.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Gate = Literal["success", "advantage", "none"]


def group_mean(values: Tensor, size: int) -> Tensor:
    """(B,) → (B,): the mean of each row's group, NaN left out; NaN where a group has nothing else."""
    return values.view(-1, size).nanmean(1).repeat_interleave(size)


def mean_of_others(values: Tensor, size: int) -> Tensor:
    """(B,) → (B,): the mean of the other rows of the group; NaN where none of them is known."""
    known = ~values.isnan()
    filled = torch.where(known, values, 0)
    count = known.view(-1, size).sum(1).repeat_interleave(size) - known.long()
    total = filled.view(-1, size).sum(1).repeat_interleave(size) - filled
    return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def undecided(outcome: Tensor, size: int) -> Tensor:
    """(B,) → (B,) bool: whether outcomes differ within the row's group. Elsewhere there is nothing to learn."""
    groups = outcome.view(-1, size)
    highest = groups.nan_to_num(-torch.inf).amax(1)
    lowest = groups.nan_to_num(torch.inf).amin(1)
    return (highest > lowest).repeat_interleave(size)


def without_holes(rewards: Tensor, size: int) -> Tensor:
    """(B, rewards): a reward that a row lacks (NaN) becomes its group's mean, which speaks neither for nor against it.

    TRL adds up what is there, so that a missing reward would count as 0. Rows that have none at all stay without, and
    so does a reward that nobody in the group has.
    """
    grouped = rewards.view(-1, size, rewards.shape[1])
    lacks = grouped.isnan() & ~grouped.isnan().all(2, keepdim=True)
    return torch.where(lacks, grouped.nanmean(1, keepdim=True), grouped).view_as(rewards)


def filter_groups(advantages: Tensor, outcome: Tensor, size: int) -> Tensor:
    """Advantages, (B,) or (B, T), with exactly 0 for every row of a group that is decided.

    Without it the reward of a good form alone opens a gate of positive advantage in a group where all answers are
    wrong, and the form is what is learnt.
    """
    keep = undecided(outcome, size) & ~outcome.isnan()
    return torch.where(keep.view(-1, *[1] * (advantages.ndim - 1)), advantages, 0)


def open_rows(advantages: Tensor, outcome: Tensor, size: int, gate: Gate) -> Tensor:
    """(B,) bool: the rows that get process credit, and so the ones worth a branch.

    `advantage`: A > 0, as published. `success`: and the outcome above the group's mean, which keeps out rows that are
    merely well formatted; the two agree where the outcome is the whole reward. `none`: all.
    """
    if gate == "none":
        return torch.ones_like(outcome, dtype=torch.bool)
    positive = advantages > 0
    return positive & (outcome > group_mean(outcome, size)) if gate == "success" else positive


def progress(
    advantages: Tensor,
    outcome: Tensor,
    values: Tensor,
    size: int,
    *,
    weight: float = 1.0,
    gate: Gate = "success",
    scale: Tensor | None = None,
) -> Tensor:
    """Eq. 5: A + 1[open] · weight · (V(x_cut) − group mean of the outcome), one number for a whole row.

    Args:
        advantages: (B,), from all rewards.
        values: (B,), of the one cut of each row; NaN gives no credit.
        scale: (B,), what the advantages were divided by, and so the credit is.

    Returns: (B,); with weight 0 the very advantages.
    """
    if weight == 0:
        return advantages
    credit = weight * (values - group_mean(outcome, size))
    credit = credit if scale is None else credit / scale
    given = open_rows(advantages, outcome, size, gate) & ~credit.isnan()
    return torch.where(given, advantages + credit, advantages)


def calibrated(outcome: Tensor, values: Tensor, size: int) -> Tensor:
    """(B,), (B, K) → (B, K): values on the scale of the outcome, as far as they have foretold it in this batch.

    m + s · (v − v̄), with the means m of the outcomes and v̄ of the values of the other rows of the group, and for each
    cut the slope s of the regression of outcomes on values inside groups. A value of few branches is noisy and s less
    than 1; a guess at the answer is too high or too low for all rows alike, which only adds noise, and v̄ takes it away.
    Where values have not foretold anything, NaN: a cut there would keep the outcome from the parts before it. The
    slopes come from the rows that they are used for, an error of the order of one in B.

    As baselines they may be anything that is known when a part begins. As what a part reached they leave out whatever
    values do not foretell: the gradient of the parts before a cut is multiplied by about s, and so is its noise.
    """
    known = ~values.isnan() & ~outcome.isnan()[:, None]
    found = torch.full_like(values, torch.nan)
    for k in range(values.shape[1]):
        value = torch.where(known[:, k], values[:, k], torch.nan)
        told = torch.where(known[:, k], outcome, torch.nan)
        value_apart, told_apart = value - group_mean(value, size), told - group_mean(told, size)
        slope = (value_apart * told_apart).nansum() / value_apart.square().nansum()
        if slope > 0:  # not so where it is NaN: all values of a group are equal
            found[:, k] = mean_of_others(outcome, size) + slope * (value - mean_of_others(value, size))
    return found


def pooled(outcome: Tensor, values: Tensor, branches: int) -> Tensor:
    """(B,), (B, K) → (B, K): values with the trace's own outcome, one more continuation of each cut, in the mean.

    As true on average as the values, and less noisy.
    """
    return (branches * values + outcome[:, None]) / (branches + 1)


def telescope(outcome: Tensor, values: Tensor, size: int, baselines: Tensor | None = None) -> Tensor:
    """(B, K + 1): what each segment between two cuts changed in the expected outcome.

    A segment gets the value at its end less the baseline at its start, (B, K), which are the same values unless given.
    The first starts from the mean outcome of the other rows, the last ends in the row's own outcome. So with one set of
    values a row's segments sum to outcome − baseline, and those of a wrong row earn credit for a good beginning. A cut
    without a value joins the segments beside it: both show what the two together changed. NaN in a row whose outcome,
    or first baseline, is not known.

    The gradient is exact on average where `values` are true on average given the trace up to their cut, whatever the
    baselines, which must not depend on what follows.
    """
    begun = values if baselines is None else baselines
    starts = torch.cat([mean_of_others(outcome, size)[:, None], begun], dim=1)
    ends = torch.cat([values, outcome[:, None]], dim=1)
    for k in range(1, starts.shape[1]):
        starts[:, k] = torch.where(starts[:, k].isnan(), starts[:, k - 1], starts[:, k])
    for k in range(ends.shape[1] - 2, -1, -1):
        ends[:, k] = torch.where(ends[:, k].isnan(), ends[:, k + 1], ends[:, k])
    return ends - starts


def spread(
    advantages: Tensor,
    outcome: Tensor,
    segment_credit: Tensor,
    segments: Tensor,
    size: int,
    *,
    weight: float = 1.0,
    scale: Tensor | None = None,
) -> Tensor:
    """(B, T): each token gets the credit of its segment in place of the outcome's share of the advantage.

    All other rewards stay spread evenly: A − weight · (c − c̄) / scale + weight · credit / scale.

    Args:
        advantages: (B,), from all rewards.
        segment_credit: (B, K + 1), of `telescope`; a segment with NaN keeps its row's advantage.
        segments: (B, T), the number of each token's segment, −1 for padding, which gets 0.
        weight: of the outcome in the sum of rewards, times what it was multiplied by to lie in [0, 1].
    """
    factor = weight if scale is None else (weight / scale)[:, None]
    share = (outcome - group_mean(outcome, size))[:, None]
    tokens = segment_credit.gather(1, segments.clamp(min=0))
    changed = advantages[:, None] + factor * (tokens - share)
    credited = torch.where(changed.isnan(), advantages[:, None].expand_as(changed), changed)
    return torch.where(segments < 0, 0, credited)


def segments_by_position(cuts: Tensor, mask: Tensor) -> Tensor:
    """(B, T): how many of a row's cuts (B, K) lie at or before each position; −1 where `mask` (B, T) is 0.

    A cut at c parts the first c tokens from the rest. −1 stands for no cut: the segments on both sides of it are one.
    """
    positions = torch.arange(mask.shape[1], device=mask.device)
    behind = (cuts[:, None, :] <= positions[None, :, None]) & (cuts >= 0)[:, None, :]
    return _numbered(behind, cuts, mask)


def segments_by_step(step_map: Tensor, cuts: Tensor, mask: Tensor) -> Tensor:
    """(B, T): how many cuts (B, K) had been passed when each position was revealed; −1 where `mask` is 0.

    `step_map` (B, T): the denoising step, counted up from 0, that revealed a position. A cut at s comes before step s.
    """
    behind = (cuts[:, None, :] <= step_map[:, :, None]) & (cuts >= 0)[:, None, :]
    return _numbered(behind, cuts, mask)


def _numbered(behind: Tensor, cuts: Tensor, mask: Tensor) -> Tensor:
    # The number of a segment is that of the last cut behind it, and cuts that are not there leave their numbers free.
    order = torch.arange(1, cuts.shape[1] + 1, device=cuts.device)
    last = (behind * order).amax(-1) if cuts.shape[1] else torch.zeros_like(mask, dtype=torch.long)
    return torch.where(mask.bool(), last, -1)
