"""A real model on workers answers as it does here, and takes up the weights of one in training."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engines.base import Decoding, EngineError, Request, ScoreRequest
from engines.checkpoint import load_model
from engines.open import open_engine
from engines.settings import TransformersSettings
from engines.weights import named_weights
from tests.engines.conftest import images, make_vlm, requests_, score_requests

__all__ = ["images", "make_vlm", "requests_", "score_requests"]


def test_parity_and_pushed_weights(
    address: str,
    make_vlm: Callable[..., Path],
    requests_: list[Request],
    score_requests: list[ScoreRequest],
    tmp_path: Path,
) -> None:
    checkpoint = make_vlm(lively=True)
    sampled = [replace(r, id=f"{r.id}s", decoding=Decoding(12, 1.0, 0.9), seed=i) for i, r in enumerate(requests_)]
    here = open_engine(TransformersSettings(batch_size=4), checkpoint)
    there = open_engine(TransformersSettings(batch_size=4, replicas=2), checkpoint)
    try:
        for asked in ([*requests_, *sampled], requests_[:3]):
            assert list(there.generate(asked)) == list(here.generate(asked))
        for a, b in zip(there.score(score_requests), here.score(score_requests), strict=True):
            assert a.id == b.id
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)

        model = load_model(str(checkpoint))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.7)
        before = [each.text for each in there.generate(requests_)]
        there.update_weights(named_weights(model))  # type: ignore[attr-defined]
        here.update_weights(named_weights(model))  # type: ignore[attr-defined]
        after = [each.text for each in there.generate(requests_)]
        assert after == [each.text for each in here.generate(requests_)] != before
        with pytest.raises(EngineError, match="nonsense: the model has no weight of this name and shape"):
            here.update_weights([("nonsense", torch.ones(2))])  # type: ignore[attr-defined]
        unreadable = Request("x", requests_[0].messages, str(tmp_path / "none.png"))
        assert "not a readable image" in str(next(iter(there.generate([unreadable]))).error)

        # A path that leads to an image in this process alone, as one in a folder that machines do not share.
        image = str(next(request.image for request in requests_ if request.image))
        own = "/proc/self/fd/900"
        opened = os.open(image, os.O_RDONLY)
        os.dup2(opened, 900)
        try:
            expected = rf"^{own}: the driver reads this image, and a worker, on machine {socket.gethostname()}, cannot"
            with pytest.raises(EngineError, match=expected):
                list(there.generate([replace(request, image=request.image and own) for request in requests_]))
            with pytest.raises(EngineError, match=expected):
                list(there.score([replace(request, image=request.image and own) for request in score_requests]))
        finally:
            os.close(900)
            os.close(opened)
    finally:
        there.close()
        here.close()
