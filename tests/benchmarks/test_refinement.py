"""The comparison of LoRA with LoRA in a loop: equal numbers to train, equal work, nothing done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import refinement
from engines.checkpoint import load_model
from selfrefine.sft import SftSettings


def test_a_small_comparison_ends_and_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"STEPS": 4, "SEEDS": (0,), "TRAIN": 64, "TEST": 20, "BASE": SftSettings(steps=2, batch_size=16)}
    for name, value in small.items():
        monkeypatch.setattr(refinement, name, value)
    assert refinement.main([str(tmp_path)]) == 0
    first = capsys.readouterr().out
    assert first.count("loop K=") == 9 and "lora-0: 0:" in first
    loop = json.loads((tmp_path / "loop-0.json").read_text())
    assert sorted(loop) == [str(k) for k in range(9)] and all(len(right) == 20 for right in loop.values())
    # No iteration is the base, whose answers are kept too.
    assert loop["0"] == json.loads((tmp_path / "base.json").read_text())["0"]
    assert refinement.main([str(tmp_path)]) == 0
    assert "lora-0: 0:" not in capsys.readouterr().out

    trained = {}
    for arm in ("lora", "loop"):
        model = load_model(str(tmp_path / f"{arm}-0"), merge=False)
        trained[arm] = sum(each.numel() for each in model.parameters() if each.requires_grad)
    assert trained["loop"] - trained["lora"] == 2 * refinement.SPEC.hidden_size  # the gates


def test_longer_training_takes_the_passes_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 6 layers, 2 in the loop, 2 behind it; a quarter of the steps with 1, 2, 3, 4 iterations each."""
    monkeypatch.setattr(refinement, "STEPS", 400)
    passes = sum(100 * (6 + 2 * k + 2 * (k - 1)) for k in (1, 2, 3, 4))
    assert refinement.longer() == round(passes / 6)
