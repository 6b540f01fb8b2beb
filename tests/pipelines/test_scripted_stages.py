"""The real stages around an engine that answers by a script: what it was asked, and what is warned of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engines.base import Generation, Request, Score, ScoreRequest
from pipelines.context import StageContext
from pipelines.manifest import Manifest
from pipelines.plan import Selection
from pipelines.recipe import Recipe
from pipelines.runner import run
from pipelines.stage import StageResult
from pipelines.stages.tune import TuneStage
from selfrefine.triad.templates import ANSWER_LABEL, Prompts, render_pair, render_question

PROMPTS = Prompts(system=None)
IMAGES = 20
GARBLED, SHORT = range(3), range(3, 6)
"""Numbers of the images that are answered out of form, and of those that are asked about in few words."""


class Script:
    """An engine that counts requests by image. All but `GARBLED` get a pair, which it always rebuilds."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        for request in requests:
            name = Path(str(request.image)).stem
            self.asked[name] += 1
            yield Generation(request.id, self._text(int(name), request.messages[-1]["content"]), (1, 2), "stop", 8)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        for request in requests:
            yield Score(request.id, (-1.0,))

    def close(self) -> None:
        pass

    def _text(self, number: int, asked: str) -> str:
        question = f"is number {number} here?"
        answer = "blue" if number in SHORT else "yes"
        if asked in PROMPTS.propose:
            return "who knows" if number in GARBLED else render_pair(question, answer)
        return render_question(question) if ANSWER_LABEL in asked else answer


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    def no_training(self: TuneStage, context: StageContext) -> StageResult:
        checkpoint = context.directory / "checkpoint"
        checkpoint.mkdir()
        (checkpoint / "config.json").write_text("{}", encoding="utf-8")
        return StageResult()

    engine = Script()
    monkeypatch.setattr(TuneStage, "run", no_training)
    monkeypatch.setattr("engines.open.open_engine", lambda settings, checkpoint: engine)
    return engine


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(IMAGES):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    stages = [
        {"kind": "tune", "prompts": PROMPTS.model_dump()},
        {"kind": "generate", "chunk": 4},
        {
            "kind": "filter",
            "chunk": 4,
            "similarity": "lexical",
            "measure": {"samples": 0, "other_images": 0, "edge_images": 0},
        },
    ]
    data = {"labelled": {"task": "easy-vqa", "take": 1}, "unlabelled": {"task": "images", "folder": str(folder)}}
    return Recipe.model_validate({"name": "scripted", "model": {"build": {}}, "data": data, "stages": stages})


def manifest(directory: Path) -> Mapping[str, Any]:
    found = Manifest.read(directory)
    assert found is not None
    return found.model_dump()


def test_warnings_name_what_is_unusual(recipe: Recipe, script: Script, tmp_path: Path) -> None:
    said: list[str] = []
    run(recipe, tmp_path / "run", Selection(), said.append)
    generate, filtered = (manifest(tmp_path / "run" / name) for name in ("generate", "filter"))
    assert generate["dropped"] == {"no_label": len(GARBLED)}
    assert generate["warnings"] == ["15% of the proposals could not be parsed: tune longer, or look at pairs.parquet"]
    assert filtered["numbers"]["kept of yes_no"] == (IMAGES - 6) // 5
    assert filtered["warnings"] == ["of 3 pairs of type short, a fraction of 0.2 keeps none"]
    assert [line for line in said if "warning" in line] == [
        f"generate: warning: {generate['warnings'][0]}",
        f"filter: warning: {filtered['warnings'][0]}",
    ]


def test_a_replaced_image_is_asked_about_and_measured_again(recipe: Recipe, script: Script, tmp_path: Path) -> None:
    """Although its name, and all that the model says about it, stay the same."""
    run(recipe, tmp_path / "run", Selection(), lambda line: None)
    first = Counter(script.asked)
    assert set(first) == {str(number) for number in range(IMAGES)}
    pairs = manifest(tmp_path / "run/generate")["files"]
    run(recipe, tmp_path / "run", Selection(), lambda line: None)
    assert script.asked == first, "nothing changed"
    Image.new("RGB", (8, 8), (0, 99, 0)).save(tmp_path / "photos/7.png")
    run(recipe, tmp_path / "run", Selection(), lambda line: None)
    assert script.asked["7"] == 2 * first["7"]
    assert manifest(tmp_path / "run/generate")["files"] == pairs
    # The engine was asked in the same chunks, of which each key holds all images.
    assert json.loads(json.dumps(script.asked)) == {name: 2 * count for name, count in first.items()}
