"""SR² written down once more, from the description of its public code, to hold the package against.

Nothing of the package is used. The prefix is one learnt token; its optimiser is the sign of the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

EPS = 1e-5


def weights_of(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Copies of a model's weights, by the last part of their names: `embedding`, `prefix`, `head`, `qkv`, `out`, …"""
    return {name.removesuffix(".weight").rpartition(".")[2]: weight.detach().clone() for name, weight in named}


def normed(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def turned(x: Tensor, theta: float) -> Tensor:
    """(B, T, heads, d): pairs (i, i + d/2) turned by position · theta^(−2i/d)."""
    length, half = x.shape[1], x.shape[-1] // 2
    angle = torch.outer(torch.arange(length).float(), theta ** (-torch.arange(half).float() / half))[None, :, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def block(z: Tensor, weights: dict[str, Tensor], heads: int, theta: float) -> Tensor:
    batch, length, size = z.shape
    q, k, v = (z @ w.T for w in weights["qkv"].chunk(3))
    q, k, v = (x.view(batch, length, heads, size // heads) for x in (q, k, v))
    scores = torch.einsum("bihd,bjhd->bhij", turned(q, theta), turned(k, theta)) / math.sqrt(size // heads)
    mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).reshape(batch, length, size)
    z = normed(z + mixed @ weights["out"].T)
    gate, up = (z @ w.T for w in weights["gate_up"].chunk(2))
    return normed(z + (gate * torch.sigmoid(gate) * up) @ weights["down"].T)


def stablemax_loss(logits: Tensor, labels: Tensor) -> Tensor:
    x = logits.double()
    s = torch.where(x >= 0, x + 1, 1 / (1 - x))
    p = s / s.sum(-1, keepdim=True)
    return -p.gather(-1, labels[..., None]).squeeze(-1).log().mean(1).mean()


def adam_atan2(weights: list[Tensor], moments: list[list[Tensor]], step: int, lr: float, wd: float) -> None:
    for w, (m, v) in zip(weights, moments, strict=True):
        g = torch.zeros_like(w) if w.grad is None else w.grad
        m.mul_(0.9).add_(g, alpha=0.1)
        v.mul_(0.95).add_(g * g, alpha=0.05)
        w.mul_(1 - lr * wd)
        w.sub_(lr * 1.27 * torch.atan2(m / (1 - 0.9**step), (v / (1 - 0.95**step)).sqrt()))


def train(
    weights: dict[str, Tensor],
    z_init: Tensor,
    batches: list[tuple[Tensor, Tensor]],
    segments: int,
    updates: int,
    heads: int,
    theta: float,
    lr: float,
    wd: float,
    ema: float,
) -> tuple[list[float], dict[str, Tensor]]:
    """The loss of each step, and the averaged weights; `weights` are changed.

    A rollout for each batch. Every update adds the input times 1 in the first segment and times 0 in all others.
    """
    for w in weights.values():
        w.requires_grad_(True)
    trained = [w for name, w in weights.items() if name != "prefix"]
    moments = [[torch.zeros_like(w), torch.zeros_like(w)] for w in trained]
    average = {name: w.detach().clone() for name, w in weights.items()}
    losses, step = [], 0
    size = z_init.shape[-1]
    for inputs, labels in batches:
        z = z_init.expand(len(inputs), inputs.shape[1] + 1, size)
        for segment in range(segments):
            for _ in range(updates):
                tokens = weights["embedding"][inputs]
                prefix = weights["prefix"][None].expand(len(inputs), 1, size)
                injected = math.sqrt(size) * torch.cat([prefix, tokens], 1)
                z = block(z + injected * (segment == 0), weights, heads, theta)
            loss = stablemax_loss((z @ weights["head"].T)[:, 1:], labels)
            loss.backward()
            losses.append(float(loss.detach()))
            step += 1
            with torch.no_grad():
                adam_atan2(trained, moments, step, lr, wd)
                prefix = weights["prefix"]
                assert prefix.grad is not None
                prefix.mul_(1 - lr * wd).sub_(lr * prefix.grad.sign())
                for w in weights.values():
                    w.grad = None
            z = z.detach()
        for name, w in weights.items():
            average[name] = ema * average[name] + (1 - ema) * w.detach()
    return losses, average
