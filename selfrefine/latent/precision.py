"""bfloat16 on a CPU: what is gained by it without what is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def bfloat16_products() -> Iterator[None]:
    """Multiplies float32 matrices in bfloat16, adding up in float32; all else stays float32. For CPUs.

    Where the processor has no such instructions, nothing changes. Autocast would cast in and out at each product, and
    its backward pass is slower than float32's (docs/performance.md).
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        # torch's fused kernel for CPUs makes its many small products one by one: ten times as slow in this mode.
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
