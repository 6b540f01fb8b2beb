"""What a training warned of before it was stopped is still said when it has gone on to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.context import StageContext
from pipelines.errors import Interrupted
from pipelines.metrics import Metrics
from pipelines.recipe import Recipe
from pipelines.stages.reinforce import ReinforceStage
from pipelines.stop import Stop
from selfrefine.training import TrainingStopped


def test_warnings_outlive_a_stop_and_are_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"question": "what?", "answer": "a"}\n')
    recipe = Recipe.model_validate(
        {
            "name": "mine",
            "model": {"path": "some/model"},
            "data": {"labelled": {"task": "table", "source": str(data)}},
            "stages": [{"kind": "reinforce"}],
        }
    )
    context = StageContext(recipe, "reinforce", tmp_path, {}, [], 0, Stop(), Metrics(tmp_path / "metrics.jsonl"))
    stage = ReinforceStage.model_validate({})

    def training(*said: str, ends: bool) -> Callable[..., dict[str, int]]:
        def reinforce(*args: Any, warn: Callable[[str], None], **kwargs: Any) -> dict[str, int]:
            for line in said:
                warn(line)
            if not ends:
                raise TrainingStopped("step 1 of 2")
            args[3].mkdir(exist_ok=True)
            return {"steps": 2}

        return reinforce

    monkeypatch.setattr("selfrefine.stepwise.reinforce.reinforce", training("nothing can be learnt", ends=False))
    with pytest.raises(Interrupted):
        stage.run(context)
    monkeypatch.setattr(
        "selfrefine.stepwise.reinforce.reinforce", training("nothing can be learnt", "too easy", ends=True)
    )
    assert stage.run(context).warnings == ["nothing can be learnt", "too easy"]
    # Killed after the checkpoint and before the manifest: the training is not run again, and its warnings are there.
    monkeypatch.setattr("selfrefine.stepwise.reinforce.reinforce", training(ends=False))
    assert stage.run(context).warnings == ["nothing can be learnt", "too easy"]
