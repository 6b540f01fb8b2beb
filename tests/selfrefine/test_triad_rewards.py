"""The triad's scores as rewards: what the engine says itself, and what the filter stage would say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.base import Decoding, ScoreRequest, turns
from engines.rendering import open_image
from engines.settings import TransformersSettings
from engines.transformers import TransformersEngine
from rewards.contract import RewardError, columns_of, score
from rewards.registry import load
from selfrefine.sft import Example
from selfrefine.triad import rewards as triad_rewards
from selfrefine.triad.measure import MeasureSettings, Pair, Pool, measure
from selfrefine.triad.score import consistency
from selfrefine.triad.similarity import Lexical
from selfrefine.triad.vqa import ImageQuestionAnswer
from tasks.problem import Picture
from tests.triad.tabular import PROMPTS, Tabular, answer, question

SYSTEM = "Look."  # The tiny model has a small window.
QUESTIONS = ["is it red?", "what is it?", "what is it?"]
COMPLETIONS = ["<answer>yes</answer>", "<think>hm</think>a red circle", [{"role": "assistant", "content": "a dog"}]]


@pytest.fixture
def pictures(examples: Sequence[Example]) -> list[str]:
    return [each.image for each in examples if each.image][:3]


def log_p(engine: TransformersEngine, asked: str, target: str, image: str | None) -> float:
    request = ScoreRequest("x", turns(asked, SYSTEM), target, image)
    return next(iter(engine.score([request]))).total


def test_visual_gain_is_the_difference_of_two_likelihoods(tiny: Callable[..., Path], pictures: Sequence[str]) -> None:
    checkpoint = str(tiny())
    reward = load("visual_gain", {"checkpoint": checkpoint, "wording": {"system": SYSTEM}})
    assert columns_of(reward) == ["question"]  # trainers hand over images without their being columns of the data
    found = score(reward, [""] * 3, COMPLETIONS, question=QUESTIONS, image=pictures)
    engine = TransformersEngine.open(TransformersSettings(), checkpoint)
    expected = [
        log_p(engine, asked, target, image) - log_p(engine, asked, target, None)
        for asked, target, image in zip(QUESTIONS, ["yes", "a red circle", "a dog"], pictures, strict=True)
    ]
    assert found.values == pytest.approx(expected, abs=1e-4) and not found.notes
    assert all(abs(gain) > 1e-3 for gain in expected), "an image that says nothing would pass any comparison"
    # Trainers hold pictures in memory, and neighbours in a batch do not matter.
    held = score(reward, [""], COMPLETIONS[1:2], question=QUESTIONS[1:2], image=[open_image(pictures[1])])
    assert held.values == pytest.approx(expected[1:2], abs=1e-4)


def test_what_cannot_be_scored_is_none_and_says_why(
    tiny: Callable[..., Path], pictures: Sequence[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    texts = ["yes", "<think>never closed", "", "yes"]
    images = [None, pictures[0], pictures[0], str(bad)]
    for name, reason in (("visual_gain", "error"), ("triad_consistency", "not rebuilt")):
        reward = load(name, {"checkpoint": str(tiny()), "wording": {"system": SYSTEM}})
        found = score(reward, [""] * 4, texts, question=["is it red?"] * 4, image=images)
        assert found.values == [None] * 4
        assert found.notes == {0: "no image", 1: "unparsed", 2: "unparsed", 3: reason}
    reward = load("visual_gain", {"checkpoint": str(tiny()), "wording": {"system": SYSTEM}})
    assert score(reward, [""], ["yes"], question=["is it red?"], image=[pictures[0]]).values != [None]
    without = score(reward, [""], ["yes"], question=["is it red?"])
    assert without.values == [None] and without.notes == {0: "no image"}


def test_consistency_is_the_filter_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a model whose probabilities stand in a table, for every answer to every question of three images."""
    joint = np.random.default_rng(0).dirichlet(np.ones(12), 3).reshape(3, 3, 4)
    images = [str(tmp_path / f"i{i}.png") for i in range(3)]
    monkeypatch.setattr(triad_rewards, "_opened", lambda checkpoint, settings: Tabular(joint))
    cells = list(np.ndindex(3, 3, 4)) * 2  # twice: what agrees is rebuilt once
    options: dict[str, Any] = {"checkpoint": "any", "similarity": "lexical", "wording": PROMPTS.model_dump()}
    found = score(
        load("triad_consistency", options), [""] * 72, [f"<answer>{answer(a)}</answer>" for _, _, a in cells],
        question=[question(q) for _, q, _ in cells], image=[images[i] for i, _, _ in cells],
    )  # fmt: skip
    pairs = [
        Pair(f"{i}{q}{a}", Picture(images[i], images[i]), question(q), answer(a)) for i, q, a in np.ndindex(3, 3, 4)
    ]
    triad = ImageQuestionAnswer(Tabular(joint), PROMPTS, Lexical(), Decoding())
    settings = MeasureSettings(samples=0, other_images=0, edge_images=0)
    expected = [consistency(row) for row in measure(pairs, Pool(pairs), triad, Lexical(), settings, 0)]
    assert found.values == pytest.approx(expected * 2, abs=1e-12)
    # The answer that the model would give, to the question that it would ask for it, is the whole of 1; few are.
    assert 0 < sum(value == 1 for value in expected) < len(expected) / 2


def test_mistakes_are_one_line() -> None:
    columns = {"question": ["q"], "image": [None]}
    with pytest.raises(RewardError, match="`visual_gain` asks a model: give its option `checkpoint`"):
        score(load("visual_gain"), [""], ["yes"], **columns)
    with pytest.raises(RewardError, match="takes no `checkpont`; did you mean `checkpoint`"):
        load("triad_consistency", {"checkpont": "x"})
    with pytest.raises(RewardError, match=r"option `engine`: .*kind"):
        score(load("visual_gain", {"checkpoint": "x", "engine": {"kind": "vlm"}}), [""], ["yes"], **columns)
    with pytest.raises(RewardError, match="option `wording`: systm"):
        score(load("visual_gain", {"checkpoint": "x", "wording": {"systm": "s"}}), [""], ["yes"], **columns)


def test_a_picture_in_memory_is_written_once(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 4), (1, 2, 3)), Image.new("RGB", (4, 4), (1, 2, 4))
    kept = triad_rewards._kept(first)
    assert kept == triad_rewards._kept(first.copy()) != triad_rewards._kept(second)
    assert Image.open(kept).tobytes() == first.tobytes()
