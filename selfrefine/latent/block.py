"""The transformer block that is applied again and again: post-norm, no biases, attention to every position."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from selfrefine.latent.config import LatentReasonerConfig

Rotation = tuple[Tensor, Tensor]
_TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal variable that is cut at ±2."""


def rms(x: Tensor, eps: float) -> Tensor:
    """(…, D) → (…, D): divided by the root of its mean square, computed in float32; no weights."""
    return functional.rms_norm(x.float(), (x.shape[-1],), eps=eps).to(x.dtype)


def rotation(length: int, head_size: int, theta: float, device: torch.device, turned: bool = True) -> Rotation:
    """cos and sin, (length, head_size) each, of rotary positions 0, 1, … (arXiv 2104.09864), halves side by side.

    `turned` False: the positions stay as they are.
    """
    frequency = theta ** -(torch.arange(0, head_size, 2, device=device, dtype=torch.float32) / head_size)
    angle = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequency * turned
    angle = torch.cat([angle, angle], 1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """(B, H, T, head) → the same, each position turned by its angle."""
    cos, sin = (table.to(x.dtype) for table in by)
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def truncated_normal(tensor: Tensor, std: float) -> Tensor:
    """Fills `tensor` from a normal cut at two of its standard deviations, scaled so that `std` is what comes out.

    `torch.nn.init.trunc_normal_` has a smaller one; this is JAX's form, as in the public code.
    """
    from transformers import initialization

    std /= _TRUNCATED_STD
    filled: Tensor = initialization.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)
    return filled


class TransformerBlock(GradientCheckpointingLayer):  # type: ignore[misc]
    """z ← rms(z + attention(z)); z ← rms(z + swiglu(z))."""

    def __init__(self, config: LatentReasonerConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.inner_size
        self.heads, self.eps = config.heads, config.rms_norm_eps
        self.qkv = nn.Linear(size, 3 * size, bias=False)
        self.out = nn.Linear(size, size, bias=False)
        self.gate_up = nn.Linear(size, 2 * inner, bias=False)
        self.down = nn.Linear(inner, size, bias=False)

    def forward(self, z: Tensor, positions: Rotation) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        z = rms(z + self._attention(z, positions), self.eps)
        gate, up = self.gate_up(z).chunk(2, -1)
        return rms(z + self.down(functional.silu(gate) * up), self.eps)

    def _attention(self, z: Tensor, positions: Rotation) -> Tensor:
        batch, length, size = z.shape
        query, key, value = self.qkv(z).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(rotate(query, positions), rotate(key, positions), value)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, size))
        return out


class Stack(nn.Module):
    """Blocks one after another."""

    def __init__(self, config: LatentReasonerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.layers))

    def forward(self, z: Tensor, positions: Rotation) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        for block in self.blocks:
            z = block(z, positions)
        return z
