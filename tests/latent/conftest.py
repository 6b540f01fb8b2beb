"""A reasoner that is small enough for a test, and boards for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selfrefine.latent.boards import Boards
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.model import LatentReasoner


@pytest.fixture
def config() -> LatentReasonerConfig:
    return LatentReasonerConfig(
        alphabet="_1234", seq_len=16, hidden_size=32, heads=4, updates=3, segments=4, rope_theta=100.0
    )


@pytest.fixture
def reasoner(config: LatentReasonerConfig) -> LatentReasoner:
    torch.manual_seed(5)
    return LatentReasoner(config)


@pytest.fixture
def boards() -> Boards:
    """Forty boards of 16 cells whose answer is the input with every blank filled by the token that follows its left."""
    draw = np.random.default_rng(3)
    labels = draw.integers(2, 6, (40, 16))
    return Boards(np.where(draw.random((40, 16)) < 0.4, 1, labels), labels)
