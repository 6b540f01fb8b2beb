"""The examples of docs/checkpoints.md run, in their order, on checkpoints of the kinds that they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.checkpoint import load_model
from engines.looped.config import LoopSettings
from engines.looped.files import describe
from engines.looped.loop import attach
from selfrefine.build import BuildSpec, build_model
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.model import LatentReasoner
from tests.engines.looped_models import enliven

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`runs/mine` with a small model, a loop on it and a reasoner, in the directory that the examples are run in."""
    mine = tmp_path / "runs" / "mine"
    (mine / "update").mkdir(parents=True)
    plain = mine / "update" / "checkpoint"
    build_model(BuildSpec(architecture="llama", vocab_size=300), ["What is two and three?"], plain, seed=0)
    model = load_model(str(plain))
    enliven(attach(model, describe(model, str(plain), LoopSettings(iterations=3))))
    model.save_pretrained(mine / "reflect" / "checkpoint")
    torch.manual_seed(0)
    LatentReasoner(LatentReasonerConfig("1234_", 16, hidden_size=32, heads=2)).save_pretrained(
        mine / "recur" / "checkpoint"
    )
    monkeypatch.chdir(tmp_path)
    return mine


def test_the_examples_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: list[dict[str, Any]] = []
    for example in EXAMPLES:
        found.append({})
        exec(compile(example, str(PAGE), "exec"), found[-1])  # noqa: S102 - our own page
    asked, plain, looped, solved = found
    ids = plain["tokenizer"]("two and three", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = plain["model"](ids).logits
        assert torch.equal(looped["model"](ids).logits, expected)
        looped["loop"].iterations = 3
        assert not torch.equal(looped["model"](ids).logits, expected)
    said = capsys.readouterr().out
    assert asked["generation"].finish in said and "\n3\n" in said
    assert solved["solved"].answers.shape == (8, 1, 16)
