"""What a training takes from where it runs, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from selfrefine.training import TIMEOUT, Precision, of_machine


@pytest.mark.parametrize(("precision", "expected"), [("float32", "no"), ("bfloat16", "bf16")])
def test_the_precision_is_the_recipe_s_whatever_accelerate_s_environment_says(
    precision: Precision, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    arguments = TrainingArguments(output_dir=str(tmp_path), **of_machine(precision))
    assert arguments.mixed_precision == expected


def test_processes_on_gpus_wait_for_each_other_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainer hands it on to their group; on CPUs it does not, which a whole training tests."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "ddp_timeout" not in of_machine("float32")
    monkeypatch.setenv(TIMEOUT, "77")
    assert of_machine("float32") == {"bf16": False, "use_cpu": False, "ddp_timeout": 77}
