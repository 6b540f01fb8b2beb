"""What a training takes from where it runs, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import TrainingArguments

from selfrefine.training import Precision, of_machine


@pytest.mark.parametrize(("precision", "expected"), [("float32", "no"), ("bfloat16", "bf16")])
def test_the_precision_is_the_recipe_s_whatever_accelerate_s_environment_says(
    precision: Precision, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    arguments = TrainingArguments(output_dir=str(tmp_path), **of_machine(precision))
    assert arguments.mixed_precision == expected
